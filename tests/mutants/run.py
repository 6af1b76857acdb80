#!/usr/bin/env python3
"""Whether the tests notice bugs. README.md has the format of the lists and what is done with them.

    run.py [--jobs N] [--only CHECK[,CHECK...]] [--seeds N] [NAME...]
"""

import argparse
import concurrent.futures
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

root = Path(__file__).resolve().parents[2]
scratch = root / "build" / "mutants"
source = scratch / "source"
binary = scratch / "release"
copied = ["src", "include", "lib", "tests", "subprojects", "meson.build", "meson_options.txt"]

switch = """#pragma once
extern "C" char* getenv(const char*) noexcept;
extern "C" int atoi(const char*) noexcept;
inline bool flotilla_mutant(int number) {
  static const int on = [] {
    const char* const text = getenv("FLOTILLA_MUTANT");
    return text == nullptr ? 0 : atoi(text);
  }();
  return number == on;
}
"""


class Check:
    """`folders`: the sources it has in it. `slices`: the arguments of its runs, one after the other. `times`: how often it
    must fail; a check that has deadlines on the wall clock may fail once because the machine was busy. Not to end at
    all needs no second time: the limits are many times what a check takes."""

    def __init__(self, name, target, folders, slices=(("--abort-after=1",),), timeout=60, times=1):
        self.name, self.target, self.folders, self.slices = name, target, folders.split(), slices
        self.timeout, self.times = timeout, times

    def sees(self, mutant):
        return mutant.file.split("/")[1] in self.folders


def checks(seeds):
    everything = "raft log state net node"
    step = 4
    member_slices = [("--seeds", str(step), "--from", str(begin)) for begin in range(1, seeds + 1, step)]
    return [
        Check("scenarios", "tests/raft/test_raft_scenarios", "raft", [(source / "tests/raft/scenarios",)]),
        Check("raft", "tests/raft/test_raft", "raft"),
        Check("log", "tests/log/test_log", "raft log"),
        Check("state", "tests/state/test_state", "raft state"),
        Check("state_fault", "tests/state/test_state_fault", "raft state"),
        Check("net", "tests/net/test_net", "raft net"),
        Check("core_sim", "tests/sim/core/core_sim", "raft", [("--seeds", str(50 * seeds))], 120),
        Check("durability", "tests/node/test_durability", everything),
        Check("member_sim", "tests/sim/member/member_sim", everything, member_slices, 120),
        Check("node", "tests/node/test_node", everything, timeout=240, times=2),
        Check("members", "tests/node/test_members", everything, timeout=240, times=2),
        Check("space", "tests/node/test_space", "log state node", timeout=240, times=2),
        Check("crash", "tests/crash/crash", "log state node", [("--images", "3000", "--until-wrong")], 240),
    ]


# ---- the lists


class Mutant:
    def __init__(self, where, name, guards):
        self.where, self.name, self.guards = where, name, guards
        self.file = self.kind = self.after = None
        self.old, self.new = [], []
        self.number = self.begin = self.end = 0


def fail(text):
    print(f"mutants: {text}")
    sys.exit(2)


def read_lists():
    mutants = []
    for path in sorted(Path(__file__).parent.glob("*.txt")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            where = f"{path.name}:{number}"
            if not line or line.startswith("#"):
                continue
            if line.startswith("== "):
                name, _, guards = line[3:].partition(" ")
                mutants.append(Mutant(where, name, guards))
                continue
            if not mutants:
                fail(f"{where}: a list begins with \"== NAME\"")
            mutant = mutants[-1]
            if line.startswith("- "):
                mutant.old.append(line[2:])
            elif line.startswith("+"):
                mutant.new.append(line[2:])
            elif line.startswith("after "):
                mutant.after = line[6:]
            elif mutant.file is None and len(line.split()) == 2:
                mutant.file, mutant.kind = line.split()
            else:
                fail(f"{where}: not understood: {line}")
    names = [mutant.name for mutant in mutants]
    for number, mutant in enumerate(mutants, 1):
        mutant.number = number
        whole = mutant.kind in ("expression", "statement") and mutant.old and (mutant.new or mutant.kind == "statement")
        if not whole or names.count(mutant.name) > 1:
            fail(f"{mutant.where}: {mutant.name} is not whole, or its name is taken")
    return mutants


# ---- the instrumented copy


def pattern(text):
    """Of the text however it is broken into lines."""
    return re.compile(r"\s*".join(re.escape(token) for token in re.findall(r"\w+|[^\w\s]", text)))


def find(mutant, text):
    """None, or why it has no place."""
    begin = 0
    if mutant.after:
        anchors = list(pattern(mutant.after).finditer(text))
        if len(anchors) != 1:
            return f"{len(anchors)} places match \"{mutant.after}\""
        begin = anchors[0].end()
    places = list(pattern("\n".join(mutant.old)).finditer(text, begin))
    if not places or (len(places) > 1 and not mutant.after):
        return f"{len(places)} places match its old text"
    mutant.begin, mutant.end = places[0].span()
    return None


def instrument(text, mutants, begin=0, end=None):
    """Each place becomes a choice; places may lie within one another."""
    end = len(text) if end is None else end
    out = []
    while mutants:
        outer = min(mutants, key=lambda mutant: (mutant.begin, -mutant.end, mutant.number))
        inside = [one for one in mutants if one is not outer and one.begin < outer.end]
        mutants = [one for one in mutants if one is not outer and one not in inside]
        for one in inside:
            if one.end > outer.end:
                fail(f"{one.where}: {one.name} and {outer.name} overlap in {outer.file}")
        old = instrument(text, inside, outer.begin, outer.end)
        new = "\n".join(outer.new)
        on = f"flotilla_mutant({outer.number})"
        out.append(text[begin:outer.begin])
        if outer.kind == "expression":
            out.append(f"({on} ? ({new}) : ({old}))")
        else:
            out.append(f"if ({on}) {{ {new} }} else {{ {old} }}")
        begin = outer.end
    out.append(text[begin:end])
    return "".join(out)


def write_if_new(path, content):
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def copy_sources(mutants):
    files = {}
    for name in copied:
        path = root / name
        for file in [path] if path.is_file() else path.rglob("*"):
            if file.is_file():
                files[str(file.relative_to(root))] = file
    lost = []
    for mutant in mutants:
        why = find(mutant, files[mutant.file].read_text()) if mutant.file in files else "there is no such file"
        if why:
            lost.append(f"{mutant.where}: {mutant.name} in {mutant.file}: {why}")
    if lost:
        fail("\nmutants: ".join(lost))
    for name, file in files.items():
        content = file.read_bytes()
        here = [mutant for mutant in mutants if mutant.file == name]
        if here:
            content = instrument(content.decode(), here).encode()
        write_if_new(source / name, content)
    for file in source.rglob("*"):
        if file.is_file() and str(file.relative_to(source)) not in files:
            file.unlink()
    write_if_new(scratch / "switch.hpp", switch.encode())


def run_logged(command, environment=None):
    log = scratch / "build.log"
    with open(log, "w") as out:
        if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment).returncode == 0:
            return
    lines = [line for line in log.read_text().splitlines() if "error:" in line]
    print("\n".join(lines[:20]))
    fail(f"the instrumented copy does not build; its whole output: {log}")


def build(wanted):
    if not (binary / "build.ninja").exists():
        compiler = os.environ.get("CXX") or ("ccache g++" if shutil.which("ccache") else "g++")
        run_logged(
            ["meson", "setup", binary, source, "-Doptimization=1", "-Ddebug=false", "-Dwarning_level=0",
             "-Dwerror=false", "-Dexamples=false", f"-Dcpp_args=-include {scratch / 'switch.hpp'} -w"],
            os.environ | {"CXX": compiler})
    run_logged(["ninja", "-k", "0", "-C", binary, "-j", os.environ.get("JOBS") or str(os.cpu_count())] + [one.target for one in wanted])


# ---- running


def limit():
    """Of this process, and so of every check it starts."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))  # a missing bound must not take the machine


def run_check(check, number):
    """None if it passes, else what it said."""
    for arguments in check.slices:
        said = run_slice(check, arguments, number)
        if said is not None:
            return said
    return None


def run_slice(check, arguments, number):
    temporary = tempfile.mkdtemp(dir=scratch)
    environment = os.environ | {"FLOTILLA_MUTANT": str(number), "TMPDIR": temporary}
    process = subprocess.Popen(
        [binary / check.target, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=environment, start_new_session=True)
    try:
        output = process.communicate(timeout=check.timeout)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"no end within {check.timeout} s"
    finally:
        shutil.rmtree(f"/dev/shm/flotilla-sim-{process.pid}", ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)
    return None if process.returncode == 0 else reason(check, process.returncode, output)


def reason(check, code, output):
    if check.name == "core_sim":
        said = re.search(r"FAILED seed (\d+): (.*)", output)
        run = re.search(r"^seeds (\d+)", output, re.M)
        if said and run:
            return f"after {run[1]} seeds: {said[2]}"
    if check.name == "member_sim":
        said = sorted((int(seed), what) for seed, what in re.findall(r"seed (\d+) FAILED: (.*)", output))
        if said:
            return f"after {said[0][0]} seeds: {said[0][1]}"
    if check.name == "crash":
        said = re.search(r"WRONG: (.*)", output)
        run = re.search(r"^crash: (\d+) images", output, re.M)
        if said and run:
            return f"after {run[1]} images: {said[1]}"
    said = re.search(r"broken invariant: .*|\S+\.txt$|ERROR: .*", output, re.M)
    what = said[0] if said else f"ends with {code}"
    case = re.search(r"TEST CASE:\s*(.*)", output)
    return f"in \"{case[1]}\": {what}" if case else what


def judge(mutant, wanted):
    """The first check that fails, and why. No mutant: of all."""
    for check in wanted:
        if mutant and not check.sees(mutant):
            continue
        for _ in range(check.times if mutant else 1):
            said = run_check(check, mutant.number if mutant else 0)
            if said is None or said.startswith("no end"):
                break
        if said is not None:
            return check, said
    return None, None


def judge_timed(mutant, wanted):
    begun = time.monotonic()
    return mutant, *judge(mutant, wanted), time.monotonic() - begun


def main():
    parser = argparse.ArgumentParser(prog="mutants")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="so many mutants at a time")
    parser.add_argument("--only", help="only these checks, by name")
    parser.add_argument("--seeds", type=int, default=40, help="of member_sim; core_sim runs 50 times as many")
    parser.add_argument("--list", action="store_true", help="names, and what each guards against")
    arguments = parser.parse_args()
    mutants = read_lists()
    if arguments.list:
        for mutant in mutants:
            print(f"{mutant.name:<48} {mutant.file}  {mutant.guards}")
        return 0
    wanted = checks(arguments.seeds)
    if arguments.only:
        wanted = [check for check in wanted if check.name in arguments.only.split(",")]
    chosen = [mutant for mutant in mutants if not arguments.names or mutant.name in arguments.names]
    for name in arguments.names:
        if name not in [mutant.name for mutant in mutants]:
            fail(f"no mutant {name}")
    begun = time.monotonic()
    copy_sources(mutants)
    build(wanted)
    print(f"built with {len(mutants)} mutants in {time.monotonic() - begun:.0f} s", flush=True)
    limit()
    pool = concurrent.futures.ThreadPoolExecutor(arguments.jobs)

    def all_judged(judged):
        tasks = [pool.submit(judge_timed, one, wanted) for one in judged]
        return (task.result() for task in concurrent.futures.as_completed(tasks))

    # As many at a time as there will be with mutants, so that what fails only on a busy machine shows here.
    for _, check, said, seconds in all_judged([None] * arguments.jobs):
        if check:
            fail(f"without any mutant {check.name} fails: {said}")
        print(f"passes without any mutant in {seconds:.0f} s", flush=True)
    survivors = []
    for mutant, check, said, seconds in all_judged(chosen):
        if check:
            print(f"{mutant.name:<48} killed by {check.name}, {seconds:.1f} s: {said[:110]}", flush=True)
        else:
            print(f"{mutant.name:<48} SURVIVED, {seconds:.1f} s", flush=True)
            survivors.append(mutant)
    for mutant in survivors:
        print(f"survived: {mutant.name} ({mutant.file}; {mutant.guards})")
    print(f"mutants: {len(chosen) - len(survivors)} killed, {len(survivors)} survived")
    return 1 if survivors else 0


try:
    sys.exit(main())
except KeyboardInterrupt:
    os._exit(130)  # without waiting for what is queued
