"""One file per command: ``add`` describes its options, ``main`` does it."""

import argparse


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Says what each default is, once, and as it would be typed."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help or "", action.default
        if default is None or default is False or "(default: " in text:
            return text
        if isinstance(default, list | tuple):
            return f"{text} (default: {' '.join(map(str, default)) or 'none'})"
        return super()._get_help_string(action)
