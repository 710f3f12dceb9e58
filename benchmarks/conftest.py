"""Let SIGTERM, like Ctrl-C, make pytest print the tables so far, with a note of what is missing."""

import signal

import pytest


class Kept:
    """The hooks of one session."""

    def __init__(self):
        self.finished, self.terminated = set(), False

    def pytest_sessionstart(self):
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, number, frame):
        signal.signal(number, signal.SIG_IGN)
        self.terminated = True
        raise KeyboardInterrupt

    def pytest_runtest_logfinish(self, nodeid):
        self.finished.add(nodeid)

    def pytest_collection_finish(self, session):
        self.items = [(item.nodeid, item.name) for item in session.items]

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter):
        missing = [name for nodeid, name in self.items if nodeid not in self.finished]
        if missing:
            terminalreporter.write_line(f"Missing: {', '.join(missing)}.")

    def pytest_sessionfinish(self, session):
        if self.terminated:
            session.exitstatus = 128 + signal.SIGTERM


def pytest_configure(config):
    config.pluginmanager.register(Kept())
