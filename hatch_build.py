"""What a wheel carries inside the package, and a checkout has beside it, for an installed one to execute and to copy.

An editable installation finds it beside the package, and gets no copy that could lag behind. Run by hatchling alone.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHIPPED = ("notebooks", "params", "constraints.txt")


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            build_data["force_include"] |= {name: f"safety_nb/shipped/{name}" for name in SHIPPED}
