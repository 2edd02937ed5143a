"""What the comparisons of this folder share.

A row of a table has contenders: programs that do the same work. A round asks each
of them once, one after the other, so that a machine whose speed drifts drifts for
all; medians over the rounds count. What was timed while other programs took more than
5 % of a processor is timed again, up to three times. Rows are kept in bench/results/ as they are
finished, with the sum of the program measured: a script that was stopped goes on
where it was, and measures again what another build has measured.
"""

import argparse
import fnmatch
import glob
import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


# The side of a peer: a process that measures when it is told to.


def times(step, runs):
    """Wall-clock and processor time of each of so many steps."""
    wall, cpu = [], []
    for _ in range(runs):
        began, used = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    return wall, cpu


def peak_memory():
    """The largest resident set so far, in bytes."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("VmHWM:"))


def answer(step, batch, runs, serve, **facts):
    """Warms up and measures so many steps: once, or with serve at each line of
    standard input."""
    for _ in range(3):
        step()
    while True:
        if serve:
            print(json.dumps({"ready": True}), flush=True)
            if not sys.stdin.readline():
                return
        wall, cpu = times(step, runs)
        s = statistics.median(wall)
        print(json.dumps({**facts, "step_seconds": s, "step_seconds_p99": p99(wall), "images_per_second": batch / s,
                          "step_cpu_seconds": statistics.median(cpu), "peak_bytes": peak_memory()}), flush=True)
        if not serve:
            return


def p99(seconds):
    """The 99th of 100, as residual bench has it; nothing of fewer."""
    n = len(seconds)
    return sorted(seconds)[(99 * n + 99) // 100 - 1] if n >= 100 else None


# The side of the scripts.


class Once:
    """A contender that is a new process each round; read makes a dict of what it prints."""

    def __init__(self, command, env=None, read=json.loads):
        self.command, self.env, self.read = command, {**os.environ, **(env or {})}, read

    def measure(self):
        done = subprocess.run(self.command, env=self.env, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(self.command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
        return self.read(done.stdout)

    def close(self):
        pass


def account(command):
    """Runs a program; returns what the kernel says that it used."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}\n{errors[-2000:]}")
    return usage


class Served:
    """A contender that stays: a peer with --serve, whose start and compilation are paid once."""

    def __init__(self, command, env=None):
        self.command = command
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([*command, "--serve"], env={**os.environ, **(env or {})}, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.errors, text=True)
        self.line()

    def line(self):
        while True:
            line = self.process.stdout.readline()
            if not line:
                self.process.wait()
                self.errors.seek(0)
                raise RuntimeError(f"{' '.join(self.command)}: exit {self.process.returncode}\n{self.errors.read()[-2000:]}")
            if line.startswith("{"):
                return json.loads(line)

    def measure(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        report = self.line()
        self.line()  # ready again
        return report

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()


def others(contender, measure):
    """What measure returns, and how much of a processor other programs took
    meanwhile; 0 where /proc/stat does not tell."""
    def ours():
        u = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = u.ru_utime + u.ru_stime
        if hasattr(contender, "process"):  # that stays
            with open(f"/proc/{contender.process.pid}/stat") as f:
                used += sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13])) / TICKS
        return used

    def all_programs():
        with open("/proc/stat") as f:
            user, nice, system, _, _, irq, soft, steal = map(int, f.readline().split()[1:9])
        return (user + nice + system + irq + soft + steal) / TICKS

    if not os.path.exists("/proc/stat"):
        return measure(), 0
    began, busy, used = time.time(), all_programs(), ours()
    result = measure()
    return result, (all_programs() - busy - (ours() - used)) / (time.time() - began)


TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
DISTURBED = 0.05  # of a processor: what other programs may take
ATTEMPTS = 4


def parser(description, rounds=5, threads=True):
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("residual", help="the program, from: go build -o residual ./cmd/residual")
    p.add_argument("--rows", default="*", help="only rows with such names: patterns with * and ?, separated by commas")
    p.add_argument("--rounds", type=int, default=rounds)
    if threads:
        p.add_argument("--threads", type=int, default=2)
        p.add_argument("--clock", default="wall", choices=["wall", "cpu"],
                       help="cpu: processor time of all threads, which is what counts beside other programs; with --threads 1, as "
                            "PyTorch's threads wait for each other actively")
    p.add_argument("--again", action="store_true", help="measure rows that are there already")
    p.add_argument("--list", action="store_true", help="print the names of the rows")
    return p


class Rows:
    """The rows of a script, measured or read back."""

    def __init__(self, args, kind, timed=True):
        self.args, self.timed = args, timed and args.clock == "wall"
        self.path = os.path.join(HERE, "results", kind + ".json")
        with open(args.residual, "rb") as f:
            self.build = hashlib.sha256(f.read()).hexdigest()[:16]
        self.stored = self.read()

    def read(self):
        if not os.path.exists(self.path):
            return {}
        with open(self.path) as f:
            return json.load(f)

    def wanted(self, name):
        return any(fnmatch.fnmatch(name, pattern) for pattern in self.args.rows.split(","))

    def row(self, name, contenders):
        """Measures a row: {contender: function that opens it}. Returns {contender:
        [report of each round]}, None where the row is not wanted. A contender that
        cannot run is told and left out, and its row measured again the next time."""
        if not self.wanted(name):
            return None
        if self.args.list:
            print(name)
            return None
        kept = self.stored.get(name)
        if kept and not self.args.again and kept["build"] == self.build and kept["rounds"] >= self.args.rounds \
                and set(kept["reports"]) == set(contenders):
            return kept["reports"]
        began = time.time()
        opened, reports = {}, {}
        try:
            for who, open_it in contenders.items():
                try:
                    opened[who] = open_it()
                except (RuntimeError, OSError, Missing) as err:
                    print(f"{name}: {who} is left out: {err}", file=sys.stderr)
            failed = set()
            for _ in range(self.args.rounds):
                for who, contender in opened.items():
                    if who in failed:
                        continue
                    try:
                        for attempt in range(ATTEMPTS):
                            time.sleep(0.3)  # until the threads of the one before sleep
                            report, disturbed = others(contender, contender.measure)
                            if disturbed < DISTURBED or not self.timed:
                                break
                        else:
                            print(f"{name}: {who}: other programs took {disturbed:.2f} of a processor, also after {ATTEMPTS} attempts", file=sys.stderr)
                        reports.setdefault(who, []).append(report)
                    except (RuntimeError, OSError) as err:
                        print(f"{name}: {who} is left out: {err}", file=sys.stderr)
                        failed.add(who)
                        reports.pop(who, None)
        finally:
            for contender in opened.values():
                contender.close()
        print(f"{name}: {time.time() - began:.0f} s", file=sys.stderr, flush=True)
        self.stored = self.read()  # again: another call may have measured other rows meanwhile
        self.stored[name] = {"build": self.build, "rounds": self.args.rounds, "reports": reports}
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with open(self.path + ".tmp", "w") as f:
            json.dump(self.stored, f, indent=1)
        os.replace(self.path + ".tmp", self.path)
        return reports


class Missing(Exception):
    """A library or package that a contender needs is not there."""


def library(name, where):
    """The path of a shared library; where says how it is installed."""
    for pattern in (f"{sys.prefix}/lib/{name}", f"/usr/lib/*/{name}", f"/usr/lib64/{name}", f"/usr/local/lib/{name}"):
        if found := sorted(glob.glob(pattern)):
            return found[0]
    raise Missing(f"{name} is not there: {where}")


def spread(values, digits=1):
    """The median with the range."""
    return f"{statistics.median(values):,.{digits}f} [{min(values):,.{digits}f}–{max(values):,.{digits}f}]"


def table(head, rows):
    """Prints a table in Markdown, nothing where there are no rows."""
    if rows:
        print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        for row in rows:
            print("| " + " | ".join(row) + " |")
        sys.stdout.flush()


def machine():
    """The processor, in words."""
    try:
        with open("/proc/cpuinfo") as f:
            name = next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{os.cpu_count()} processors, {name}"
