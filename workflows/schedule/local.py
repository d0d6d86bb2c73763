"""A crontab line, and a systemd service with its timer, that run a flow on this machine."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from earthgptx.workflows.schedule.cron import Cron, calendar_of


def command_of(flow: Path) -> list[str]:
    """Returns the command that runs a flow, with absolute paths: a scheduler has another PATH."""
    return [sys.executable, "-m", "earthgptx", "workflow", "run", str(flow.absolute())]


def crontab_line(flow: Path, cron: Cron) -> str:
    """Returns a line for `crontab -e`.

    What the flow prints is appended to a file beside it. `%` means a new line to cron.
    """
    log = flow.absolute().with_suffix(".log")
    command = f"{shlex.join(command_of(flow))} >> {shlex.quote(str(log))} 2>&1"
    return f"{cron.text} {command.replace('%', chr(92) + '%')}"


def systemd_units(flow: Path, name: str, cron: Cron) -> dict[str, str]:
    """Returns the units of a timer by file name, for ~/.config/systemd/user.

    An outage (exit code 3) is tried again every ten minutes, anything else is not. Secrets and
    settings come from a file with lines `NAME=value`, which need not be there.
    """
    command = " ".join(_escaped(word) for word in command_of(flow))
    service = f"""[Unit]
Description=EarthGPTX flow {name}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=oneshot
WorkingDirectory={str(flow.absolute().parent).replace("%", "%%")}
EnvironmentFile=-%h/.config/earthgptx/{name}.env
ExecStart={command}
Restart=no
RestartForceExitStatus=3
RestartSec=600
"""
    timer = f"""[Unit]
Description=When EarthGPTX runs flow {name}

[Timer]
OnCalendar={calendar_of(cron)}
Persistent=true

[Install]
WantedBy=timers.target
"""
    return {f"earthgptx-{name}.service": service, f"earthgptx-{name}.timer": timer}


def _escaped(word: str) -> str:
    """Returns a word of `ExecStart`: quoted, without specifiers or variables of systemd."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{plain}"'
