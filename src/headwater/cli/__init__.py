"""The command line: one short command per verb, each calling one public function.

Nothing heavy is imported before a command runs, so that `headwater --help` is there at once.
"""

from headwater.cli.app import main

__all__ = ["main"]
