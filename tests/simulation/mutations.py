#!/usr/bin/env python3
"""Switches off one mend, or one rule of the protocol, at a time: the simulation must notice.

    tests/simulation/mutations.py [--seconds CPU] [--list] [NAME...]

Works on a copy of the tree. Each row: the file, the text that is there exactly once, what takes its place (several of
these: all of them), the classes that are played (none: all in turn), and how soon it must be noticed. Rows of KEPT are
noticed by nothing that is lost or doubled: docs/broker-protocol.md says why they are kept.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Mutation:
    def __init__(self, what, classes, *changes):
        self.what, self.classes, self.changes = what, classes, changes


MUTATIONS = {
    "state": Mutation(
        "a client that ends is read from, if its request waits", ["hostile"],
        ("broker/client_state.c", "    client_set_reading(client, false);\n    client_cease_to_wait(client);",
         "    if (client->facts.waits_since == 0)\n        client_set_reading(client, false);\n    client_cease_to_wait(client);")),
    "heard_again": Mutation(
        "a broker that is heard again is not asked where it is", ["cut_off"],
        ("broker/herald.c", "    if (!peer->lacks_tails)\n        return;\n", "    if (herald != NULL)\n        return;\n")),
    "window": Mutation(
        "the resend window passes while a broker is silent", ["both_shards"],
        ("broker/publish.c", "return peers_are_heard(publisher->peers, now) ? passed : 0;", "return passed;")),
    "rest": Mutation(
        "what is known of a broker is forgotten after 70 s", ["cut_off_long"],
        ("broker/peers.c", "    peer->has_ready_at = tomb->has_ready_at;\n    peer->ready_at = tomb->ready_at;\n    peer->age = tomb->age;\n",
         ""),
        ("broker/peers.c", "    peer->is_known = tomb->has_ready_at;\n    peer->is_back = true;\n", ""),
        ("broker/sequence.c", "    while (table->resting_bytes > SEQUENCE_RESTING_BYTES)", "    while (table->resting_bytes > 0)")),
    "end_reset": Mutation(
        "who ends too slowly is closed in order", ["hostile"],
        ("broker/client_park.c", "        if (is_late)\n            net_set_reset_on_close(client->stream.fd);\n", "")),
    "quit": Mutation(
        "who said QUIT is waited for", ["hostile"],
        ("broker/client_park.c", "client->state != CLIENT_FINISHING && client->is_kept", "client->is_kept")),
    "ask": Mutation(
        "no negative acknowledgements", ["link_reset"],
        ("broker/receive.c", "receiver->callbacks.on_ask(receiver->callbacks.context, origin, &list);", "(void)list;")),
    "answer": Mutation(
        "the origin does not answer", ["link_reset"],
        ("broker/herald.c", "!shard_send_answer(shard, ask->sender, partition, i)", "false")),
    "hold": Mutation(
        "what is beyond a gap is delivered", ["link_reset"],
        ("broker/receive.c", "if (envelope.sequence == expected && gap == NULL)",
         "if (envelope.sequence >= expected && expected != 0 && gap == NULL)")),
    "stale": Mutation(
        "a silent subscription stays", ["link_stall", "cut_off_long"],
        ("broker/shard.c", "link_close(shard->subscribing, CLOSE_LINK_STALE);", "(void)0;")),
    "clock": Mutation(
        "the broker's clock runs while it is stopped", ["pause", "pause_and_kill"],
        ("broker/standing_clock.c", "passed < STANDING_TURN ? passed : STANDING_TURN", "passed")),
    "give_up": Mutation(
        "gaps are given up after 1 s", ["pause_and_kill", "cut_off"],
        ("broker/receive.c", "#define GIVE_UP        SECONDS(5)", "#define GIVE_UP        SECONDS(1)")),
    "silent": Mutation(
        "a silent origin is given up after 2 s", ["pause_and_kill", "cut_off"],
        ("broker/receive.c", "#define GIVE_UP_SILENT SECONDS(10)", "#define GIVE_UP_SILENT SECONDS(2)")),
    "back": Mutation(
        "the time of silence counts once the origin is heard again", ["cut_off", "pause_and_kill"],
        ("broker/receive.c", "if (peer != NULL && peer->back_at > since)", "if (peer != NULL && since == 0)")),
    "deaf": Mutation(
        "the time counts in which no shard is heard", ["cut_off_long", "both_shards"],
        ("broker/receive.c", "if (receiver->deaf_at > since)", "if (since == 0)")),
    "acked": Mutation(
        "a pod goes on behind what was written", ["pods"],
        ("broker/client_park.c", "    if (waiting <= client->queued)\n        replay_trim(&client->replay, client->queued - waiting);",
         "    if (waiting <= client->queued)\n        replay_trim(&client->replay, client->queued - client->output.bytes);")),
    "replay": Mutation(
        "a pod that returns starts live", ["pods"],
        ("broker/client_park.c", "client->heir_of = find_parked(client);", "client->heir_of = NULL; (void)find_parked;")),
    "seen": Mutation(
        "what a client manager has had is given again", ["interest_and_ends"],
        ("broker/client_park.c", "replay_trim_messages(&earlier->replay, seen);", "(void)seen;")),
    "place": Mutation(
        "a shard is known by its name alone", ["url_change"],
        ("broker/peers.c", "if (has_place && shard.place == place)", "if (has_place)")),
    "outvoted": Mutation(
        "who has another map accepts", ["maps_differ"],
        ("broker/agreement.c", "        if (is_outvoted_by(agreement, peer, is_in_use))\n            return peer;",
         "        if (is_outvoted_by(agreement, peer, is_in_use) && peer == NULL)\n            return peer;"),
        ("broker/agreement.c", "    if (waits_for_long(agreement, verdict))", "    if (waits_for_long(agreement, verdict) && agreement == NULL)")),
    "too_long": Mutation(
        "a message that is too long ends the link", ["too_long"],
        ("broker/link_reader.c", "        cursor->too_long > LINK_READER_START)", "        cursor->too_long > LINK_READER_START && reader == NULL)")),
    "aborted": Mutation(
        "an aborted transaction is executed", ["none"],
        ("broker/command_transaction.c", "        transaction_abort(transaction_of(call));", "        (void)0;")),
    "queued": Mutation(
        "MULTI is refused, and what follows is done at once", ["none"],
        ("broker/command_transaction.c", "    call->facts->transaction = transaction_new();\n    resp_write_simple(call->reply, \"OK\");",
         "    command_refuse(call, \"ERR unknown command 'MULTI'\");")),
    "seal": Mutation(
        "what is not sealed is taken", ["forged"],
        ("broker/seal.c", "return seal->accepts_unsigned ? SEAL_UNCHECKED : SEAL_UNSIGNED;", "return SEAL_UNCHECKED;")),
}
KEPT = {
    "accepts": Mutation(
        "accept_unsigned does nothing", ["keys"],
        ("broker/publish_shards.c", "                  config->accepts_unsigned);", "                  config->accepts_unsigned && publisher == NULL);")),
    "suspect": Mutation(
        "an unanswered link stays up", ["shard_stop"],
        ("broker/link.c", "    if (is_unanswered(link, now)) {",
         "    if (is_unanswered(link, now) && link->config.kind != LINK_PUBLISHING) {")),
    "dedupe": Mutation(
        "what is below expected is taken (a gap that it would begin ends at once)", ["shard_kill"],
        ("broker/receive.c", "return verdict != SEQUENCE_DUPLICATE;", "return true;")),
    "number": Mutation(
        "old heartbeats are believed", ["shard_stop", "map_change_and_kill"],
        ("broker/peers.c", "    if (verdict == TRACK_LATE)\n        return PEER_OLD;\n", "")),
    "lately": Mutation(
        "what was confirmed just now is not sent again at a move", ["shard_kill"],
        ("broker/shard_place.c", "now - sent->confirmed_at > SHARD_CONFIRMED_LATELY", "now >= sent->confirmed_at")),
}


def say(text):
    print(text, flush=True)


def copy_tree(folder):
    for name in ("CMakeLists.txt", "LICENSE", "cmake", "broker", "proxy", "shared"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy(source, folder / name)
    (folder / "tests").mkdir()
    shutil.copytree(ROOT / "tests/simulation", folder / "tests/simulation")
    text = (ROOT / "tests/CMakeLists.txt").read_text()
    # of the tests only this one
    begin = text.index("if(NOT FUZZERS)\n  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/simulation")
    (folder / "tests/CMakeLists.txt").write_text(text[begin:])


def build(folder):
    done = subprocess.run(["ninja", "-C", folder / "build", "-j", os.environ.get("SIDRAIL_JOBS", "2"), "simulation"],
                          capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"the build failed:\n{done.stdout[-3000:]}")


def apply(folder, mutation):
    """Returns what was there, to be put back."""
    before = {}
    for name, old, new in mutation.changes:
        path = folder / name
        text = path.read_text()
        before.setdefault(path, text)
        if text.count(old) != 1:
            return before, f"its text is in {name} {text.count(old)} times, not once"
        path.write_text(text.replace(old, new))
    return before, None


def play(folder, classes, seconds):
    """(what was found, or None; CPU seconds)"""
    spent = 0.0
    for name in classes or [None]:
        words = [folder / "build/tests/simulation", "--stop", "--seconds", str(seconds / max(1, len(classes)))]
        if name is not None:
            words += ["--class", name]
        done = subprocess.run(words, capture_output=True, text=True)
        found = re.search(r"^class .*", done.stdout, re.M)
        spent += float(re.search(r"in ([0-9.]+) s of CPU", done.stdout).group(1))
        if found:
            return found.group(0), spent
    return None, spent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300, help="CPU seconds for each")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("name", nargs="*")
    options = parser.parse_args()
    table = {**MUTATIONS, **KEPT}
    if options.list:
        for name, mutation in table.items():
            say(f"{name:20} {mutation.what}")
        return 0
    names = options.name or list(MUTATIONS)
    if set(names) - set(table):
        sys.exit(f"there is no mutation {', '.join(set(names) - set(table))}; --list shows them")
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        copy_tree(folder)
        subprocess.run(["cmake", "-S", folder, "-B", folder / "build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"],
                       check=True, stdout=subprocess.DEVNULL)
        build(folder)
        for name in names:
            mutation = table[name]
            before, why = apply(folder, mutation)
            found, spent = None, 0.0
            if why is None:
                build(folder)
                began = time.monotonic()
                found, spent = play(folder, mutation.classes, options.seconds)
                why = f"noticed after {spent:.1f} s of CPU: {found}" if found else \
                    f"NOT NOTICED in {spent:.0f} s of CPU ({time.monotonic() - began:.0f} s)"
            say(f"{name}: {mutation.what}: {why}")
            missed += found is None and name in MUTATIONS
            for path, text in before.items():
                path.write_text(text)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
