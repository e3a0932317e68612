"""Table and plots of what run.py measured.  python report.py DIR  makes them again from DIR/results.jsonl."""
import json
import os
import sys


def number(v, digits=0):
    return "-" if v is None else f"{v:,.{digits}f}"


def table(env, results, recalls):
    out = [f"{env['date']}, {env['cpu']}, cores {env['cores']}, commit {env['commit']}, load average at the start {env['load'][0]:.1f}", ""]
    plain = [r for r in results if "error" not in r and not r.get("filter_share")]
    for data, threads in dict.fromkeys((r["data"], r["threads"]) for r in plain):
        rows = [r for r in plain if (r["data"], r["threads"]) == (data, threads)]
        out += [f"### {data}, {rows[0]['n']:,} x {rows[0]['dim']}, {threads} thread" + "s" * (threads > 1), "",
                "| library | " + " | ".join(f"batch {r}" for r in recalls) + " | " + " | ".join(f"single {r}" for r in recalls) +
                " | build s (CPU s) | disk B/vector | resident B/vector | load ms | others' CPU |",
                "|---" * (6 + 2 * len(recalls)) + "|"]
        for r in sorted(rows, key=lambda r: -(r.get(f"qps@{recalls[min(1, len(recalls) - 1)]}") or 0)):
            name = f"**{r['lib']}**" if r.get("ours") else r["lib"]
            cells = [number(r.get(f"qps@{x}")) for x in recalls] + [number(r.get(f"single@{x}")) for x in recalls]
            cells += [f"{r['build_s']:.0f} ({r['build_cpu_s']:.0f})", number(r["disk_bytes_per_vec"]), number(r["mem_bytes_per_vec"]),
                      number(1000 * r["load_s"], 1), number(r["foreign_cpu"], 2)]
            out.append(f"| {name} | " + " | ".join(cells) + " |")
        out.append("")
    filtered = [r for r in results if r.get("filter_share") and "error" not in r]
    if filtered:
        out += ["### Filters, querynode, 1 thread, one query a call", "", "| data | share | shape | " + " | ".join(recalls) + " |", "|---" * (3 + len(recalls)) + "|"]
        for r in filtered:
            out.append(f"| {r['data']} | {100 * r['filter_share']:g} % | {r['filter_shape']} | " + " | ".join(number(r.get(f"single@{x}")) for x in recalls) + " |")
        out.append("")
    out += [f"- {r['lib']} on {r['data']}: {' '.join(r['error'].split())[-160:]}" for r in results if "error" in r]
    return "\n".join(out) + "\n"


def plot(path, title, rows):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    fig, ax = plt.subplots(figsize=(8, 5))
    rows = [r for r in rows if r.get("points")]
    for i, r in enumerate(sorted(rows, key=lambda r: not r.get("ours"))):
        pts = sorted((p["recall"], p["qps"]) for p in r["points"] if p["recall"] >= 0.75)
        if not pts:
            continue
        ours = r.get("ours")
        ax.plot(*zip(*pts), marker="o", ms=5 if ours else 3, lw=2.4 if ours else 1.1, label=r["lib"], zorder=3 if ours else 2,
                color="#c0392b" if ours and i == 0 else None)
    ax.set(xlabel="recall@10", ylabel="queries a second, batches of 1000", title=title, yscale="log")
    ax.grid(True, which="both", alpha=0.25)
    ax.legend(fontsize=8)
    fig.tight_layout()
    for ext in ("svg", "png"):
        fig.savefig(f"{path}.{ext}", dpi=130, metadata={"Date": None} if ext == "svg" else None)
    plt.close(fig)


def write(folder, env, results, recalls):
    text = table(env, results, recalls)
    with open(os.path.join(folder, "report.md"), "w") as f:
        f.write(text)
    good = [r for r in results if "error" not in r and not r.get("filter_share")]
    for data, threads in dict.fromkeys((r["data"], r["threads"]) for r in good):
        rows = [r for r in good if (r["data"], r["threads"]) == (data, threads)]
        plot(os.path.join(folder, f"{data}.{threads}"), f"{data}, {rows[0]['n']:,} x {rows[0]['dim']}, {threads} thread" + "s" * (threads > 1), rows)
    return text


if __name__ == "__main__":
    lines = [json.loads(l) for l in open(os.path.join(sys.argv[1], "results.jsonl"))]
    print(write(sys.argv[1], lines[0]["environment"], lines[1:], sys.argv[2].split(",") if len(sys.argv) > 2 else ["0.9", "0.95", "0.99"]))
