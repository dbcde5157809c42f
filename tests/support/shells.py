"""The command line in a test's process, in a folder that holds a small configuration."""

from tiny import QUICK, TINY, replaced

from fedjax_lite import cli

TEXT = replaced(TINY, *QUICK)


def shell_in(folder, monkeypatch, capsys):
    """Runs a command line in an empty folder that holds tiny.toml; returns the exit status, stdout and stderr."""
    monkeypatch.chdir(folder)
    (folder / "tiny.toml").write_text(TEXT)

    def run(line):
        status = cli.main(line.split())
        return (status, *capsys.readouterr())

    return run
