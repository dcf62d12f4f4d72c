"""`robolearn init DIR`: a workspace like the repository's: datasets/, policies/, teleop/ and configs/."""

from __future__ import annotations

from robolearn.configuration.workspace_verbs import InitConfig
from robolearn.errors import ConfigError, count

CONFIG = InitConfig


def run(config: InitConfig) -> int:
    import shutil
    from pathlib import Path
    from shlex import quote

    from robolearn.storage import atomic_file
    from robolearn.workspace import shipped_files, template

    target, kept = Path(config.folder), 0
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file; name a folder for the workspace")
    files = shipped_files()
    for file in files:
        copy = target / file
        if copy.exists():
            kept += 1
            continue
        with atomic_file(copy) as fresh:
            shutil.copyfile(template() / file, fresh)
    folders = sorted({f"{file.parts[0]}/" for file in files})
    print(f"workspace {target}: {' '.join(folders)}" + (f" ({count(kept, 'existing file')} kept)" if kept else ""))
    print(f"next: cd {quote(str(target))} && robolearn tasks")
    return 0
