"""Executes notebooks: runs, studies, and what is known of them before, during and after."""
