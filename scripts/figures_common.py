"""figures_common.py - what scripts/figures-* share: cached measurements, trained nets, the list of
figures and its table

A script has functions that return lists of figure(...) or raise Skip; main() runs them in order and
writes docs/figures/<name>.json and <name>.md after each. Whatever takes time is kept in
build/figures/, so an interrupted run goes on where it stopped.
"""
import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import types

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.chdir(ROOT)
TOOL = "build/nimbus"
WORK = "build/figures"
FIGURES = "docs/figures"
DATA = os.environ.get("NIMBUS_DATA") or ("data" if os.path.isdir("data") else "../shared/data")
MODELS = f"{DATA}/mlperf-tiny"
# Waiting threads sleep: a machine that does something else meanwhile does not slow down by more
# than it must. Which kernels OpenBLAS takes is left to it and to the tool.
ENV = dict(os.environ, NIMBUS_DATA=DATA, OMP_WAIT_POLICY="passive")
ENV.pop("OPENBLAS_CORETYPE", None)
# What the command line says, and the commits that the present group of figures is made of; the
# machines too, where a kept measurement says on which it was made.
run = types.SimpleNamespace(seeds=[0, 1, 2], threads=0, commit="unknown", measured_at=set(),
                            machines=set(), measuring=True)


class Skip(Exception):
    """The figure cannot be measured here."""


def shell(command, check=True, env=None):
    print(f"  $ {command}", flush=True)
    done = subprocess.run(command, shell=True, text=True, capture_output=True,
                          env=dict(ENV, **(env or {})))
    if check and done.returncode:
        raise RuntimeError(f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done


def remembered(name, measure, *files):
    """measure()'s result, a dict, from build/figures/<name>.json if it was measured before, since the
    files that it is about were written."""
    path = f"{WORK}/{name}.json"
    if os.path.exists(path) and all(os.path.getmtime(f) <= os.path.getmtime(path) for f in files):
        with open(path) as f:
            value = json.load(f)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        value = {**measure(), "measured_at": run.commit}
        write(path, json.dumps(value))
    run.measured_at.add(value.get("measured_at", "unknown"))
    return value


def need(dataset):
    if not os.path.isdir(os.path.join(DATA, dataset)):
        raise Skip(f"no {dataset} in {DATA}")


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])


def tool(arguments):
    return last_json(shell(f"{TOOL} {arguments} --json --quiet").stdout)


def result_of(report, name):
    """What a report of `bench` says of one program or peer; None where it could not run."""
    return next((r for r in report["results"] if r["name"] == name and "skipped" not in r), None)


# ---- nets, made once and shared by the figures ---------------------------------------------------

def train(name, arguments):
    def measure():
        began = time.monotonic()
        tool(f"train {arguments} -o {WORK}/{name}.net")
        return {"seconds": time.monotonic() - began}
    return f"{WORK}/{name}.net", remembered(name + ".train", measure)["seconds"]


def float_net(data, seed):
    need(data)
    return train(f"{data}-{seed}", f"--data {data} --seed {seed} -t {run.threads}")


def imported(name, file, options):
    """The float net of one of MLPerf Tiny's models."""
    need("mlperf-tiny")
    remembered(f"{name}.import",
               lambda: tool(f"import {MODELS}/{file} {options} -o {WORK}/{name}.net"))
    return f"{WORK}/{name}.net"


def converted(data, seed, arguments, tag):
    net, _ = float_net(data, seed)
    name = f"{data}-{seed}-{tag}"

    def measure():
        began = time.monotonic()
        tool(f"convert {net} --data {data} {arguments} --seed {seed} -t {run.threads} "
             f"-o {WORK}/{name}.net")
        seconds = time.monotonic() - began
        tool(f"compile {WORK}/{name}.net -o {WORK}/{name}.nimbus")
        return {"seconds": seconds}
    seconds = remembered(name + ".convert", measure, net)["seconds"]
    return f"{WORK}/{name}", seconds


def accuracy(model, data, split="test"):
    """Test accuracy in percent. Looked at only here, for the final figure."""
    tag = os.path.relpath(model, WORK).replace("/", "-")
    return 100 * remembered(f"{tag}.{split}", lambda: tool(
        f"eval {model} --data {data} --split {split}"), model)["accuracy"]


def compiled_accuracies(data, arguments, tag):
    """Test accuracies of the conversions of all seeds' float nets, compiled, in percent."""
    return [accuracy(converted(data, s, arguments, tag)[0] + ".nimbus", data) for s in run.seeds]


def native_net(name, spec, seed, data="mnist", teacher=None, options=""):
    """A net trained as lookup layers, teacher the float net if no other is given."""
    teacher = teacher or float_net(data, seed)[0]
    return train(f"{name}-{seed}", f"--data {data} --net '{spec}' --teacher {teacher} "
                                   f"{options} --seed {seed} -t {run.threads}")[0]


def compiled(net, folder=None, options=""):
    """The program of a net, beside it or in a folder of WORK."""
    name = os.path.relpath(net, WORK).removesuffix(".net")
    name = f"{folder}/{os.path.basename(name)}" if folder else name
    remembered(f"{name}.compile",
               lambda: tool(f"compile {net} {options} -o {WORK}/{name}.nimbus"), net)
    return f"{WORK}/{name}.nimbus"


# ---- figures -------------------------------------------------------------------------------------

def reaches(value, floor, at_least):
    return floor is None or (value >= floor if at_least else value <= floor)


def figure(what, value, floor, unit, command, seeds=None, at_least=False, **more):
    """floor None: shown for what it is, nothing was promised."""
    return {"what": what, "figure": round(value, 4), "floor": floor,
            "floor_is": "least" if at_least else "most", "unit": unit,
            "ok": bool(reaches(value, floor, at_least)), "command": command, "seeds": seeds or [],
            **more}


def spread(values):
    return {"values": [round(v, 4) for v in values],
            "spread": round(max(values) - min(values), 4)}


def conversion_loss(data, v, floor):
    """Points that the compiled conversion of the float net loses at this V, all layers converted."""
    floats = [accuracy(float_net(data, s)[0], data) for s in run.seeds]
    programs = compiled_accuracies(data, f"-v {v}", f"v{v}")
    losses = [f - p for f, p in zip(floats, programs)]
    return figure(f"{data} 784-512-512-10, all layers converted, V={v}, 8-bit tables, compiled: "
                  "points lost", statistics.mean(losses), floor, "points",
                  f"{TOOL} convert float.net --data {data} -v {v} --seed S && {TOOL} compile "
                  f"float.lookup.net && {TOOL} eval float.lookup.nimbus --data {data}", run.seeds, accuracy=round(statistics.mean(programs), 4),
                  **spread(losses))


def four_bit_loss(data, floor):
    """Points that tables of 4 bits lose against those of 8, both trained as such."""
    need(data)
    eight, four = (compiled_accuracies(data, *case)
                   for case in (("-v 8", "v8"), ("-v 8 --bits 4", "v8b4")))
    losses = [e - f for e, f in zip(eight, four)]
    return figure(f"{data}, V=8: points that 4-bit tables lose against 8-bit ones",
                  statistics.mean(losses), floor, "points",
                  f"{TOOL} convert float.net --data {data} -v 8 --seed S, with --bits 4 and without, each "
                  f"then {TOOL} compile and {TOOL} eval", run.seeds,
                  **spread(losses))


def count_tests(name, done):
    """What a cmocka program said."""
    text = done.stdout + done.stderr
    passed = len(re.findall(r"^\[       OK \]", text, re.M))
    failed = len(re.findall(r"^\[  FAILED  \] \w+$", text, re.M))
    if done.returncode and not failed:
        failed = 1
    if not passed and not failed:
        raise RuntimeError(f"{name}: no test was run\n{text[-2000:]}")
    return {"passed": passed, "failed": failed, "text": text[-4000:]}


def test_result(name, env=None):
    """Runs one test program of the test build."""
    def measure():
        if not os.path.exists("build/test/build.ninja"):
            shell("cmake -G Ninja -S . -B build/test")
        shell(f"cmake --build build/test --target {name}")
        return count_tests(name, shell(f"build/test/tests/{name}", check=False, env=env))
    return remembered(f"test.{name}" + (".hard" if env else ""), measure)


# ---- what comes out ------------------------------------------------------------------------------

def cpu_field(name):
    """What /proc/cpuinfo says of the first core; "" if it has no such line, or is not there."""
    if not os.path.exists("/proc/cpuinfo"):
        return ""
    with open("/proc/cpuinfo") as f:
        found = re.search(rf"^{name}\s*:\s*(.*)$", f.read(), re.M)
    return found.group(1).strip() if found else ""


def cpu_model():
    return cpu_field("model name") or platform.processor()


def cpu_flags():
    return set(cpu_field("flags").split())


def core_name():
    """Zen 4 is the only one of AMD's family 25 that has AVX-512; "" for others that matter less."""
    if cpu_field("vendor_id") != "AuthenticAMD" or "avx512vbmi" not in cpu_flags():
        return ""
    return {"25": "Zen 4", "26": "Zen 5"}.get(cpu_field("cpu family"), "")


def instruction_sets():
    flags = cpu_flags()
    return [name for flag, name in (("avx512vbmi", "AVX-512 VBMI"), ("avx512_vnni", "VNNI"),
                                    ("amx_int8", "AMX"), ("avx_vnni", "AVX-VNNI"),
                                    ("avx2", "AVX2")) if flag in flags]


def machine():
    sets = instruction_sets()
    core = core_name() and core_name() + ", "
    return f"{cpu_model()} ({core}{', '.join(sets) or 'no AVX2'}), {os.cpu_count()} cores"


def write(path, text):
    with open(path + ".part", "w") as f:
        f.write(text)
    os.replace(path + ".part", path)


def floor_text(e):
    sign = "≥" if e["floor_is"] == "least" else "≤"
    return "" if e["floor"] is None else f"{sign} {e['floor']:g}"


def seeds_text(e):
    return ", ".join(str(s) for s in e["seeds"])


def origin_text(results):
    """The last line of a page of figures."""
    machines = sorted({e["machine"] for e in results})
    commits = sorted({c for e in results for c in e["commit"].split(", ")})
    return (f"Machine: {'; '.join(machines)}. Commits: {', '.join(commits)}. "
            f"{time.strftime('%Y-%m-%d')}.")


def intro_text(name):
    """The first words of a page of figures."""
    return (f"Written by `make figures-{name}` together with [{name}.json]({name}.json), which has "
            "the commands, single values and commits. A floor is the least (≥) or the most (≤) "
            "that was aimed for; a missed one is marked.")


def figure_text(e, number="{:g}".format):
    if e["figure"] is None:
        return f"not measured here: {e['skipped']}"
    values = f" (spread {number(e['spread'])})" if e.get("spread") else ""
    return f"{'' if e['ok'] else '**missed:** '}{number(e['figure'])} {e['unit']}{values}"


def readme_with(blocks):
    """README.md with each text of {name: text} between the markers of that name."""
    with open("README.md") as f:
        text = f.read()
    for name, block in blocks.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise RuntimeError(f"README.md: no {begin} ... {end}")
        text = f"{before}{begin}\n{block}\n{end}{after}"
    return text


# ---- the run -------------------------------------------------------------------------------------

NUMBER = (int, float, type(None))
KEYS = {"what": str, "figure": NUMBER, "floor": NUMBER, "floor_is": str, "unit": str, "ok": bool,
        "command": str, "seeds": list, "machine": str, "commit": str, "group": str}


def faults_of(entry):
    """What is wrong with one object of a list of figures."""
    faults = [f"no {key}, or not of its type" for key, kind in KEYS.items()
              if not isinstance(entry.get(key, ()), kind)]
    if faults:
        return faults
    if entry["floor_is"] not in ("least", "most"):
        faults.append("floor_is is neither least nor most")
    met = entry["figure"] is not None and reaches(entry["figure"], entry["floor"],
                                                  entry["floor_is"] == "least")
    if entry["ok"] != (met and not entry.get("tests_failed")):
        faults.append("ok does not agree with figure and floor")
    if entry["figure"] is None and not entry.get("skipped"):
        faults.append("no figure, and no reason why")
    if not all(isinstance(v, (int, float)) for v in entry.get("values", [])):
        faults.append("values are not all numbers")
    return faults


def read(path):
    if not os.path.exists(path):
        return []
    with open(path) as f:
        return json.load(f)


def check(path, pages, more_faults):
    """The list is sound, and what is drawn from it looks as if drawn now, but for the date."""
    def undated(text):
        return re.sub(r"\b\d{4}-\d\d-\d\d\b", "DATE", text)
    results = read(path)
    faults = [f"{e.get('what', 'figure %d' % i)}: {fault}"
              for i, e in enumerate(results) for fault in faults_of(e)]
    for page, text in ({} if faults or not results else pages(results)).items():
        with open(page) as f:
            if undated(f.read()) != undated(text):
                faults.append(f"{page} does not say what the figures say")
    faults += more_faults()
    for fault in faults:
        print(f"{path}: {fault}")
    print(f"{path}: {len(results)} figures, {len(faults)} faults")
    return 1 if faults else 0


def measure_group(name, group, machine_text):
    """A group's entries; one that says why where it cannot be measured here."""
    run.measured_at.clear()
    run.machines.clear()
    try:
        entries = group()
    except Skip as why:
        entries = [{**figure(name, 0, None, "", ""), "figure": None, "ok": False,
                    "skipped": str(why)}]
    commit = ", ".join(sorted(run.measured_at)) or run.commit
    machine_text = "; ".join(sorted(run.machines)) or machine_text  # of the kept runs alone
    for e in entries:
        verdict = "skip" if e.get("skipped") else "ok  " if e["ok"] else "MISS"
        print(f"  {verdict} {e['what']}: {e.get('skipped') or e['figure']} {e['unit']} "
              f"(floor {e['floor']})", flush=True)
    return [{"group": name, **e, "machine": e.get("machine", machine_text),
             "commit": e.get("commit", commit)} for e in entries]


def chosen(where, text, names):
    """Those of a list that the text names, with commas between; all if it is empty."""
    by_text = {str(n): n for n in names}
    asked = text.split(",") if text else list(by_text)
    unknown = [a for a in asked if a not in by_text]
    if unknown:
        sys.exit(f"{where}: no {unknown[0]}; there are {', '.join(by_text)}")
    return [n for t, n in by_text.items() if t in asked]


def main(script, description, groups, pages, more_faults=list, seeds="0,1,2", lists=()):
    """groups: {name: function}; pages(results): {path: text} of what is drawn from the list;
    more_faults(): what --check finds elsewhere; seeds: without --seeds; lists: {option: all that it
    can name}, what is chosen is run.<option>. Groups find the figures of an earlier run in
    run.earlier; what they take over from there keeps its machine and commit."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", default=seeds)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--check", action="store_true",
                        help="measure nothing; see whether the files in docs/figures are sound")
    for option in lists:
        parser.add_argument(f"--{option}", default="")
    args = parser.parse_args()
    out = f"{FIGURES}/{script.replace('figures-', '')}.json"
    run.seeds = [int(s) for s in args.seeds.split(",")]
    run.threads = args.threads
    if args.list:
        print("\n".join(groups))
        return 0
    if args.check:
        return check(out, pages, more_faults)
    wanted = chosen(script, args.only, list(groups))
    for option in lists:
        setattr(run, option, chosen(f"{script} --{option}", getattr(args, option), lists[option]))
    run.earlier = read(out)
    os.makedirs(WORK, exist_ok=True)
    os.makedirs(FIGURES, exist_ok=True)
    run.commit = shell("git describe --always --dirty --exclude '*'").stdout.strip()
    results = [e for e in run.earlier if e["group"] in groups]
    order, failed = list(groups), 0
    for i, name in enumerate(wanted):
        print(f"[{i + 1}/{len(wanted)}] {name}", flush=True)
        try:
            entries = measure_group(name, groups[name], machine())
            measured = not any(e.get("skipped") for e in entries)
            known = any(e["group"] == name and not e.get("skipped") for e in results)
            if measured or not known:  # what was measured elsewhere stays
                results = [e for e in results if e["group"] != name] + entries
        except RuntimeError as error:
            failed += 1
            print(f"  FAILED: {error}", flush=True)
        results.sort(key=lambda e: order.index(e["group"]))
        write(out, json.dumps(results, indent=1) + "\n")
        for path, text in pages(results).items():
            write(path, text)
    missed = sum(not e["ok"] and not e.get("skipped") for e in results)
    skipped = sum(bool(e.get("skipped")) for e in results)
    print(f"{len(results)} figures, {missed} floors missed, {skipped} not measured here, "
          f"{failed} groups failed")
    return 1 if failed else 0
