"""A node under test: the program as a process, and a client of it."""

import json
import os
import signal
import subprocess
import time

import grpc
import numpy as np
from querynode.v1 import catalog_pb2, catalog_pb2_grpc, control_pb2, control_pb2_grpc
from querynode.v1 import query_pb2, query_pb2_grpc, types_pb2, write_pb2, write_pb2_grpc

STRONG = types_pb2.Freshness(level=types_pb2.CONSISTENCY_LEVEL_STRONG)
TIMEOUT = 60  # of one call, in seconds


class Node:
    """Starts the program on free ports with the files in data_dir."""

    def __init__(self, binary, data_dir):
        self.binary, self.data_dir, self.process = binary, data_dir, None
        self.log_path = data_dir + ".log"

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", "--data-dir", self.data_dir, "--grpc-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"],
                stdout=log, stderr=log)
        info = self._wait_for_info()
        self.channel = grpc.insecure_channel(info["grpc_addr"])
        self.query = query_pb2_grpc.QueryServiceStub(self.channel)
        self.write = write_pb2_grpc.WriteServiceStub(self.channel)
        self.catalog = catalog_pb2_grpc.CatalogServiceStub(self.channel)
        self.control = control_pb2_grpc.ControlServiceStub(self.channel)
        self._wait_until_serving()

    def _wait_for_info(self):
        path = os.path.join(self.data_dir, "node.json")
        for _ in range(600):
            self._check_alive()
            try:
                with open(path) as f:
                    info = json.load(f)
                if info["pid"] == self.process.pid:
                    return info
            except FileNotFoundError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"{path} did not appear")

    def _wait_until_serving(self):
        for _ in range(600):
            self._check_alive()
            try:
                if self.control.GetMetrics(control_pb2.GetMetricsRequest(), timeout=TIMEOUT).state == "serving":
                    return
            except grpc.RpcError as e:
                if e.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
            time.sleep(0.05)
        raise RuntimeError("the node does not come to serve")

    def _check_alive(self):
        code = self.process.poll()
        if code is not None:
            raise RuntimeError(f"the node ended with code {code}; see {self.log_path}")

    def stop(self, sig=signal.SIGTERM):
        """Ends the process and returns its exit code."""
        self.channel.close()
        self.process.send_signal(sig)
        try:
            return self.process.wait(timeout=60)
        finally:
            self.process.kill()
            self.process.wait()

    def kill(self):
        """Ends the process if it runs, whatever state it is in."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def field(name, kind, **more):
    return types_pb2.FieldSchema(name=name, type=kind, **more)


def column(name, values):
    """The API form of a numpy array or list; None is null."""
    data = types_pb2.FieldData(field=name)
    if isinstance(values, list):
        if None in values:
            data.valid.extend(v is not None for v in values)
        data.strings.values.extend(v or "" for v in values)
    elif values.dtype == np.bool_:
        data.bools.values.extend(values.tolist())
    elif values.dtype == np.float64:
        data.doubles.values.extend(values.tolist())
    else:
        data.ints.values.extend(values.tolist())
    return data


def vectors(array, raw):
    """The API form of vectors: as values, or as little-endian bytes."""
    out = types_pb2.FloatVectors(dim=array.shape[1])
    if raw:
        out.raw = array.astype("<f4").tobytes()
    else:
        out.values.extend(array.ravel().tolist())
    return out


class Collection:
    """One collection of a node. Rows are dicts of field name to array or list."""

    def __init__(self, node, name, fields, vector, index):
        self.node, self.name, self.vector = node, name, vector
        made = node.catalog.CreateCollection(catalog_pb2.CreateCollectionRequest(
            name=name, schema=types_pb2.CollectionSchema(fields=fields), indexes=[index]), timeout=TIMEOUT)
        self.id = made.collection.id
        self.field_ids = {f.name: f.id for f in made.collection.schema.fields}

    def put(self, rows, upsert=False, batch=2500):
        """Writes rows, every second batch with raw vectors."""
        total = len(rows[self.vector])
        for i, at in enumerate(range(0, total, batch)):
            part = {k: v[at:at + batch] for k, v in rows.items()}
            fields = []
            for name, values in part.items():
                if name == self.vector:
                    fields.append(types_pb2.FieldData(field=name, vectors=vectors(values, raw=i % 2 == 0)))
                else:
                    fields.append(column(name, values))
            n = len(part[self.vector])
            if upsert:
                op = {"upsert": write_pb2.UpsertOperation(rows=n, fields=fields)}
            else:
                op = {"insert": write_pb2.InsertOperation(rows=n, fields=fields)}
            self.node.write.Append(write_pb2.AppendRequest(collection=self.name, **op), timeout=TIMEOUT)

    def delete(self, ids=None, where=""):
        op = write_pb2.DeleteOperation(filter=where)
        if ids is not None:
            op.ids.ints.values.extend(int(i) for i in ids)
        self.node.write.Append(write_pb2.AppendRequest(collection=self.name, delete=op), timeout=TIMEOUT)

    def flush(self):
        done = self.node.write.Flush(write_pb2.FlushRequest(collection=self.name, wait=True), timeout=TIMEOUT)
        return list(done.flushed_segment_ids)

    def search(self, queries, k, raw=True, batch=100, **more):
        """Returns ids and scores, one array per query."""
        ids, scores = [], []
        for at in range(0, len(queries), batch):
            r = self.node.query.Search(query_pb2.SearchRequest(
                collection=self.name, field=self.vector, vectors=vectors(queries[at:at + batch], raw), top_k=k, freshness=STRONG, **more),
                timeout=TIMEOUT)
            ends = np.cumsum(r.counts)
            ids += np.split(np.array(r.ids.ints.values, dtype=np.int64), ends[:-1])
            scores += np.split(np.array(r.scores, dtype=np.float32), ends[:-1])
        return ids, scores

    def rows(self, where="", fields=()):
        """Returns the values of fields of the rows that match, as lists, in order of the key."""
        out = None
        for piece in self.node.query.Query(query_pb2.QueryRequest(
                collection=self.name, filter=where, output_fields=fields, freshness=STRONG), timeout=TIMEOUT):
            if piece.HasField("stats"):
                continue
            if out is None:
                out = {f.field: [] for f in piece.fields}
            for f in piece.fields:
                data = getattr(f, f.WhichOneof("values"))
                values = list(data.values)
                if f.valid:
                    values = [v if ok else None for v, ok in zip(values, f.valid)]
                out[f.field] += values
        return out or {}

    def count(self, where=""):
        for piece in self.node.query.Query(query_pb2.QueryRequest(
                collection=self.name, filter=where, output_fields=["count(*)"], freshness=STRONG), timeout=TIMEOUT):
            return piece.count
