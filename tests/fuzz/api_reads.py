"""The rules that read: now, in a transaction, in the past; and the trail with its proofs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
from api_model import ABSENT, Writes, matches, nearest, reached
from api_writes import Writing
from api_zoo import BLOBS, KEYS, NODES, RELATIONS, USERS, MismatchError, same

from waferdb import audit


class Reading(Writing):
    """Every way to ask, compared with the model."""

    # ---- reading

    def readers(self) -> tuple[Any, Writes | None, int, dict[str, Any]]:
        """Where to read: now, in a transaction, in the past, in a snapshot."""
        draw = self.random.random()
        now = self.db.lsn
        if self.open_ and draw < 0.4:
            tx = self.one(self.open_)
            return tx.handle, tx.writes, now, {}
        if draw < 0.6:
            return self.db, None, now, {}
        if draw < 0.7:
            return self.db, None, now, {"consistency": self.one(["strong", "session", now])}
        lsn = self.lsn()
        return self.db, None, lsn, {"as_of": lsn}

    def get_things(self) -> None:
        handle, writes, lsn, how = self.readers()
        live = self.model.view("things", writes, lsn)
        keys = self.random.sample(KEYS, 3)
        same(handle.things.get_many(keys, **how), [live.get(key) for key in keys], "get_many")
        key = keys[0]
        same(handle.things.get(key, "none", **how), live.get(key, "none"), f"get {key!r} {how}")
        if not how:
            same(key in handle.things, key in live, f"{key!r} in things")
            same(handle.things.count(), len(live), "count")
            same(sorted(handle.things), sorted(live), "iteration")
            try:
                same(handle.things[key], live.get(key, ABSENT), f"things[{key!r}]")
            except KeyError:
                same(key in live, False, f"things[{key!r}] raises KeyError")

    def read_versions(self) -> None:
        key, lsn = self.one(KEYS), self.lsn()
        found = self.db.things.read(key, as_of=lsn)
        at, value = self.model.of["things"].newest(key, lsn)
        expected = (None, None) if value is ABSENT else (value, at)
        same((found.value, found.version), expected, f"read {key!r} as of {lsn}")
        if value is not ABSENT:
            same(found.time.utcoffset(), timedelta(0), "a time in UTC")

    def scan_things(self) -> None:
        handle, writes, lsn, how = self.readers()
        live = self.model.view("things", writes, lsn)
        keys = sorted(live, key=str.encode)
        options: dict[str, Any] = {}
        draw = self.random.random()
        if draw < 0.3:
            options["prefix"] = prefix = self.one(["a", "k", "é", "k1", "z", "", "nothing"])
            keys = [key for key in keys if key.startswith(prefix)]
        elif draw < 0.7:
            start, end = self.one([None, *KEYS]), self.one([None, *KEYS])
            options |= {"start": start, "end": end}
            keys = [one for one in keys if start is None or one.encode() >= start.encode()]
            keys = [one for one in keys if end is None or one.encode() < end.encode()]
        if self.chance(0.4):
            options["reverse"] = True
            keys.reverse()
        if self.chance(0.3):
            options["after"] = after = self.one(KEYS)
            past = lambda key: (key.encode() > after.encode()) != ("reverse" in options)  # noqa: E731
            keys = [key for key in keys if key != after and past(key)]
        if self.chance(0.4):
            options["limit"] = limit = self.random.randint(0 if self.chance(0.1) else 1, 5)
            keys = keys[:limit]
        with handle.things.scan(**options, **how) as cursor:
            found = list(cursor)
        same(found, [(key, live[key]) for key in keys], f"scan {options} {how}")

    def find_things(self) -> None:
        handle, writes, lsn, how = self.readers()
        where, options = self.where(), {}
        live = self.model.view("things", writes, lsn)
        expected = {key: one for key, one in live.items() if matches(one, where)}
        if self.chance(0.5):
            options["order"] = self.one(["n", "-n"])
        if self.chance(0.3):
            options["limit"] = self.random.randint(1, 5)
        found = list(handle.things.find(where, **options, **how))
        what = f"find {where} {options} {how} of {live}"
        wanted = min(len(expected), options.get("limit", len(expected)))
        same(len(found), wanted, f"length of {what}: {found}")
        same([one for one in found if expected.get(one[0], ABSENT) != one[1]], [], what)
        same(len({key for key, _ in found}), len(found), f"distinct keys of {what}")
        if "order" in options:
            down = options["order"] == "-n"
            ordered = sorted((one["n"] for one in expected.values()), reverse=down)[:wanted]
            same([one["n"] for _, one in found], ordered, what)
        if not how and writes is None:
            self.db.things.explain(where)

    def get_blobs(self) -> None:
        handle, writes, lsn, how = self.readers()
        live = self.model.view("blobs", writes, lsn)
        same(list(handle.blobs.scan(**how)), sorted(live.items()), f"blobs {how}")
        key = self.one(BLOBS[1:])
        same(handle.blobs.get(key, **how), live.get(key), f"blobs[{key!r}]")

    def search(self) -> None:
        handle, writes, lsn, how = self.readers()
        name, dim, metric = self.one([("vectors", 3, "l2"), ("loose", 2, "dot")])
        if writes is not None and name == "vectors":
            # Vectors whose row went in the same transaction are not modelled before the commit.
            return
        live = self.model.view(name, writes, lsn)
        query, k = self.vector(dim), self.random.randint(1, 6)
        near: dict[str, Any] = live
        options: dict[str, Any] = {}
        if name == "vectors" and self.chance(0.4):
            options["where"] = where = self.where()
            rows = self.model.view("things", writes, lsn)
            near = {key: one for key, one in live.items() if matches(rows[key], where)}
        expected = nearest(near, query, metric, k)
        vectors = getattr(handle, name)
        hits = vectors.search(query, k, exact=self.chance(0.5), **options, **how)
        what = f"{name}.search({query}, {k}, {options}, {how}) of {near}"
        same(list(hits.keys), [key for _, key in expected], what)
        if not np.allclose(hits.distances, [one for one, _ in expected], atol=1e-5):
            raise MismatchError(f"{what}: {hits.distances} not {expected}")
        key = self.one(KEYS)
        found = vectors.get(key, **how)
        same(None if found is None else tuple(map(float, found)), live.get(key), f"{name}[{key!r}]")
        if found is not None:
            self.refused_quietly(ValueError, lambda: found.__setitem__(0, 1.0), "a read-only array")

    def scan_events(self) -> None:
        lsn, options = self.db.lsn, {}
        events = list(self.model.log)
        if self.chance(0.4):
            options["after"] = after = self.lsn()
            events = [one for one in events if one.lsn > after]
        if self.chance(0.4):
            options["until"] = until = self.lsn()
            events = [one for one in events if one.lsn <= until]
        if self.chance(0.3):
            options["kind"] = kind = self.one(["seen", "things.put", "things.delete", "none"])
            events = [one for one in events if one.kind == kind]
        if self.chance(0.3):
            options["key"] = key = self.one(KEYS)
            events = [one for one in events if one.key == key]
        found = list(self.db.log.scan(**options))
        same(
            sorted((one.lsn, one.index) for one in found),
            [(e.lsn, e.index) for e in found],
            "order",
        )
        deleted = lambda one: None if one is ABSENT else one  # noqa: E731
        # Of several changes of one row in a transaction, the contract names only the last.
        told = [(one.lsn, one.kind, one.key, one.payload) for one in found]
        expected = [(one.lsn, one.kind, one.key, deleted(one.payload)) for one in events]
        last = {(one[0], one[2]): one for one in expected if one[1].startswith("things.")}
        missing = [
            one for one in expected
            if one not in told and (not one[1].startswith("things.") or last[one[0], one[2]] == one)
        ]  # fmt: skip
        same(missing, [], f"events not told at {lsn}, {options}: {told}")
        same([one for one in told if one not in expected and one[1] != "things.delete"], [],
             f"events made up at {lsn}, {options}")  # fmt: skip
        own = [one for one in told if not one[1].startswith("things.")]
        same(own, [one for one in expected if not one[1].startswith("things.")], "own events")
        limit = self.random.randint(1, 4)
        newest = list(self.db.log.scan(**options, reverse=True, limit=limit))
        same(newest, found[::-1][:limit], f"the newest {limit} events")

    def get_cache(self) -> None:
        key, now = self.one(KEYS), self.now()
        kept = self.model.of["temp"].get(key)
        found = self.db.temp.get(key, ABSENT)
        if kept is ABSENT or kept[1] < now - 0.001:
            same(found, ABSENT, f"temp[{key!r}], expired or absent at {now}: {kept}")
        elif kept[1] > now + 0.001:
            same(found, kept[0], f"temp[{key!r}] at {now}")
        row = self.model.of["things"].get(key)
        same(self.db.warm.get(key, ABSENT), row, f"warm[{key!r}]")

    def get_notes(self) -> None:
        handle, writes, lsn, how = self.readers()
        live = self.model.view("notes", writes, lsn)
        scope = self.one(USERS)
        expected = {name: value for (at, name), value in live.items() if at == scope}
        same(handle.notes.load(scope, **how), expected, f"notes of {scope} {how}")
        same(set(handle.notes.scopes(**how)), {at for at, _ in live}, f"scopes {how}")
        name = self.one(["tone", "place", "é"])
        same(handle.notes.get(scope, name, **how), expected.get(name), f"note {scope} {name} {how}")

    def get_graph(self) -> None:
        handle, writes, lsn, how = self.readers()
        live = self.model.view("graph", writes, lsn)
        node = self.one(NODES)
        edges = {
            (one.src, one.relation, one.dst): one.props for one in handle.graph.edges(node, **how)
        }
        expected = {edge: props for edge, (_, props) in live.items() if node in (edge[0], edge[2])}
        same(edges, expected, f"edges of {node} {how}")
        relation, way = self.one([None, *RELATIONS]), self.one(["out", "in", "both"])
        depth = self.random.randint(1, 3)
        found = handle.graph.neighbors(node, relation, direction=way, depth=depth, **how)
        told = {one.node: one.depth for one in found}
        what = f"neighbors of {node}, {relation}, {way}, {depth} {how} of {live}"
        same(told, reached(live, node, relation, way, depth), what)
        same(len(told), len(found), f"distinct {what}")

    def get_views(self) -> None:
        user = self.one(USERS)
        things = self.model.of["things"].live()
        rows = {key: one for key, one in things.items() if one.get("user") == user}
        strong = self.one(["strong", "session"])
        found = self.db.tally.get(user, consistency=strong)
        same(found, {"count": len(rows)} if rows else None, f"tally of {user}, {strong}")
        if self.chance(0.5):
            found = self.db.digest.get(user, consistency="strong")
            total = sum(one["n"] for one in rows.values())
            expected = {"keys": sorted(rows), "sum": total} if rows else None
            same(found, expected, f"digest of {user}")
            if self.chance(0.3) and rows:
                versions = {self.model.of["things"].newest(key)[0] for key in rows}
                same(set(self.db.digest.lineage(user)), versions, f"lineage of {user}")
        else:
            stored = self.db.digest.read(user)
            past = self.model.of["things"].live(stored.freshness.lsn)
            keys = sorted(key for key, one in past.items() if one.get("user") == user)
            if stored.value is not None:
                same(stored.value["keys"], keys, f"digest of {user} at {stored.freshness}")

    # ---- the trail

    def audit_trail(self) -> None:
        head = self.db.audit.head()
        same(head.size, self.db.lsn, "entries of the trail")
        if not head.size:
            return
        lsn = self.lsn()
        proof, leaf = self.db.audit.prove(lsn), self.db.audit.leaf(lsn)
        same(audit.verify(proof, head.root, leaf), True, f"proof of {lsn}")
        again = audit.InclusionProof.from_json(proof.to_json())
        same(again, proof, "a proof's JSON")
        self.forged(proof, head, leaf)
        entry = next(iter(self.db.audit.entries(after=lsn - 1, limit=1)))
        known = self.model.commits.get(lsn)
        if known is not None:
            same((entry.lsn, entry.actor, entry.reason), (lsn, *known[1:]), "an entry")
        if self.heads:
            old = self.one(self.heads)
            growth = self.db.audit.prove_growth(old.size, head.size)
            same(audit.verify_growth(growth, old.root, head.root), True, f"growth of {old.size}")
            if old.size not in (0, head.size):
                wrong = bytes([old.root[0] ^ 1]) + old.root[1:]
                same(audit.verify_growth(growth, wrong, head.root), False, "another old root")
        self.heads.append(head)

    def forged(self, proof: Any, head: Any, leaf: bytes) -> None:
        """Whatever is changed in a proof, it holds no more."""
        draw, path = self.random.randrange(5), list(proof.path)
        index, size, root = proof.index, proof.size, head.root
        if draw == 0 and path:
            at = self.random.randrange(len(path))
            path[at] = bytes([path[at][0] ^ 1 << self.random.randrange(8)]) + path[at][1:]
        elif draw == 1:
            path.append(self.random.randbytes(32))
        elif draw == 2 and path:
            path.pop(self.random.randrange(len(path)))
        elif draw == 3:
            leaf += b"\x00"
        else:
            root = root[:-1] + bytes([root[-1] ^ 1])
        changed = audit.InclusionProof(index, size, proof.leaf_hash, tuple(path))
        same_bytes = changed == proof and root == head.root and draw != 3
        same(audit.verify(changed, root, leaf), same_bytes, f"a forged proof ({draw})")

    def read_changes(self) -> None:
        after = self.random.randint(max(0, self.db.lsn - 20), self.db.lsn)
        commits = list(self.db.changes(after))
        same([one.lsn for one in commits], list(range(after + 1, self.db.lsn + 1)), "changes()")
        same(sorted(one.time for one in commits), [one.time for one in commits], "times")
        for one in commits:
            if one.lsn in self.model.commits:
                txn, actor, reason = self.model.commits[one.lsn]
                same((one.txn, one.actor, one.reason), (txn, actor, reason), f"commit {one.lsn}")
            keys = {change.key for change in one.changes if change.structure == "things"}
            of = self.model.of["things"].of
            expected = {key for key in KEYS for lsn, _ in of.get(key, ()) if lsn == one.lsn}
            same(expected <= keys, True, f"rows of commit {one.lsn}: {keys}, not {expected}")
