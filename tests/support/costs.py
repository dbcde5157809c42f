"""What a run of the tests costs: CPU seconds and compiled programs by file, the dearest first, at the end of every run."""

import os
import resource
from collections import Counter, defaultdict

import jax
import pytest

COMPILED = "/jax/core/compile/backend_compile_duration"
SHARE = 0.005  # of the whole: files below it are one line


def cpu_seconds():
    """User and system time of this process and of the children that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Costs:
    """A plugin: each process tells what passed since its last test with the report of the next, and one adds it up."""

    def __init__(self):
        self.programs = self.counted = 0
        self.since = 0.0
        self.seconds, self.compiled = defaultdict(float), Counter()
        jax.monitoring.register_event_duration_secs_listener(self.heard)

    def heard(self, event, seconds, **labels):
        self.programs += event == COMPILED

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if call.when == "teardown":
            now = cpu_seconds()
            report.cost = str(item.path.relative_to(item.config.rootpath)), now - self.since, self.programs - self.counted
            self.since, self.counted = now, self.programs
        return report

    def pytest_runtest_logreport(self, report):
        if cost := getattr(report, "cost", None):
            file, seconds, compiled = cost
            self.seconds[file] += seconds
            self.compiled[file] += compiled

    def pytest_collection_finish(self):
        """What came before the first test is said on its own."""
        self.begun = self.since = cpu_seconds()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["begun"] = self.begun

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node, error):
        self.seconds["starting and collecting"] += getattr(node, "workeroutput", {}).get("begun", 0)

    def pytest_terminal_summary(self, terminalreporter):
        self.seconds["starting and collecting"] += self.begun if not terminalreporter.config.getoption("numprocesses", None) else cpu_own()
        for line in table(self.seconds, self.compiled):
            terminalreporter.write_line(line)


def cpu_own():
    """Without the workers."""
    used = os.times()
    return used.user + used.system


def table(seconds, compiled):
    """Lines of CPU seconds, share and programs by file."""
    whole = sum(seconds.values())
    yield f"{'CPU seconds':>11}  share  programs"
    rest = Counter()
    for file in sorted(seconds, key=seconds.get, reverse=True):
        if seconds[file] < SHARE * whole:
            rest += Counter(seconds=seconds[file], files=1, programs=compiled[file])
        else:
            yield f"{seconds[file]:11.1f}  {seconds[file] / whole:5.1%}  {compiled[file]:8}  {file}"
    if rest["files"]:
        yield f"{rest['seconds']:11.1f}  {rest['seconds'] / whole:5.1%}  {rest['programs']:8}  {rest['files']} files below {SHARE:.1%} each"
    yield f"{whole:11.1f}  100.0%  {sum(compiled.values()):8}  in all"
