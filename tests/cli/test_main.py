"""The command line as a user meets it: real subprocesses, exit codes, one-line errors."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from robolearn.cli.main import VERBS, main, verb_commands
from robolearn.cli.parsing.parser import build_parser, parse
from robolearn.configuration.tree import options


def robolearn(*args: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "robolearn", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **kwargs)  # type: ignore[call-overload]


def seconds_of_children() -> float:
    """Return what they have cost a processor, which other programs hardly change."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_lists_every_verb_and_starts_fast() -> None:
    times = []
    for _ in range(3):
        began = seconds_of_children()
        result = robolearn("--help")
        times.append(seconds_of_children() - began)
    assert result.returncode == 0
    assert all(verb in result.stdout for verb in VERBS)
    assert min(times) < 0.5


@pytest.mark.parametrize("verb", list(VERBS))
def test_help_of_each_verb_imports_neither_torch_nor_mujoco(verb: str) -> None:
    code = (
        "import sys; from robolearn.cli.main import main\n"
        "try:\n    main([sys.argv[1], '--help'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'mujoco', 'h5py', 'gymnasium', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code, verb], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "robolearn" in result.stdout


def test_version() -> None:
    result = robolearn("--version")
    assert result.stdout.startswith("robolearn ")
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "unknown verb 'trian'; did you mean 'train'?"),
        (["dataset", "inof"], "did you mean 'info'"),
        (["record", "--tsk", "x"], "unknown key 'tsk'"),
        (["rl", "--algorithm.nme", "sac"], "did you mean 'algorithm.name'"),
        (["record"], "missing value for task"),
        (["record", "--task.kwargs.x"], "--task.kwargs.x"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["completion", "powershell"], "must be one of bash, zsh, tcsh"),
        (["dataset", "info", "nowhere.hdf5"], "nowhere.hdf5"),
        (["dataset", "info", "--path", "nowhere.hdf5"], "nowhere.hdf5"),
        (["dataset", "merge", "--paths", "one.hdf5", "two.hdf5", "--output", "both.hdf5"], "one.hdf5"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args: list[str], message: str) -> None:
    result = robolearn(*args)
    assert result.returncode == 2, result
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_every_option_of_every_verb_has_a_help_text() -> None:
    bare = [
        f"{name} --{option.key}"
        for verb in VERBS
        for name, command in verb_commands(verb).items()
        for option in options(command.config)
        if not option.help
    ]
    assert not bare


def test_dashes_and_underscores_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "--num-envs", "0", "--task", "x"]) == 2
    assert "num_envs must be at least 1" in capsys.readouterr().err


def test_a_section_is_named_as_in_yaml_or_short() -> None:
    command = verb_commands("rl")["rl"]
    short, long = (
        parse(command, ["--task", "gym:Hopper-v5", "--algorithm.utd", "2", f"--{name}", "sac"])
        for name in ("algorithm", "algorithm.name")
    )
    assert short == long
    assert (long.algorithm.name, long.algorithm.utd) == ("sac", 2)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_verbs_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "finetune" in script
    assert "--policy.head.num_modes" in script


def test_the_bash_completion_completes(tmp_path: object) -> None:
    script = robolearn("completion", "bash").stdout
    ask = 'COMP_WORDS=(robolearn tra); COMP_CWORD=1; _shtab_robolearn; echo "${COMPREPLY[@]}"'
    result = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["train"], result.stderr


def test_parsers_build_for_every_verb() -> None:
    for verb in VERBS:
        for command in verb_commands(verb).values():
            assert build_parser(command).format_help()
