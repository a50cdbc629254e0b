"""How far judges agree with people, and rates corrected by what people said."""
