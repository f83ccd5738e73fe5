"""The step of setuptools that copies Python files into a wheel, and ``configs/`` with them as ``repro/configs``."""

from __future__ import annotations

from pathlib import Path

from setuptools.command import build_py

__all__ = ["BuildWithConfigs"]

FOLDER = Path("configs")


class BuildWithConfigs(build_py.build_py):
    """Copies the configs of the top level into the package; in an editable install they stay where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for file, target in self._copies().items():
                self.mkpath(str(target.parent))
                self.copy_file(str(file), str(target))

    def _copies(self) -> dict[Path, Path]:
        built = Path(self.build_lib, "repro", "configs")
        return {file: built / file.relative_to(FOLDER) for file in sorted(FOLDER.rglob("*.yaml"))}

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *map(str, self._copies().values())]

    def get_output_mapping(self) -> dict[str, str]:
        return super().get_output_mapping() | {str(target): str(file) for file, target in self._copies().items()}

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), str(Path("tools", "build_py.py")), *map(str, self._copies())]
