"""Switches off one rule at a time: the oracle must notice, else the rule is redundant or the faults are tame.

    python3 tests/model/mutations.py [--seeds 60] [RULE...]

Each row: the rule, what takes its place, and where that must be seen: a scenario, or fault classes.
Rows of REDUNDANT are noticed by nothing that loses or doubles: the document says why they are kept.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import scenarios  # noqa: E402
import world  # noqa: E402

MUTATIONS = {
    "ask": ("no negative acknowledgements", ["link_reset"]),
    "answer": ("the origin does not answer", ["link_reset"]),
    "dedupe": ("what is below expected is delivered", ["shard_kill"]),
    "hold": ("what is beyond a gap is delivered", ["link_reset"]),
    "resend": ("nothing is sent again at a move", ["both_shards", "shard_kill"]),
    "suspect": ("an unanswered link stays up", ["shard_stop"]),
    "stale": ("a silent subscription stays", ["demotion", "link_stall"]),
    "role": ("a demoted master is used on", ["demotion"]),
    "local": ("own pods wait while all is down", ["all_shards_down_spills_then_refuses"]),
    "copies": ("enter_room is delivered per copy", ["none"]),
    "room_copy": ("the first copy is delivered, whichever it is", ["none"]),
    "base": ("no base of 1 for young origins", ["broker_crash_and_kill", "broker_crash"]),
    "positions": ("positions are not asked for", ["broker_crash_and_kill", "interest", "broker_pause_and_kill"]),
    "tombs": ("ended origins are forgotten wholly", ["stopped_shard_speaks_for_a_dead_origin"]),
    "start_map+agree": ("a starting broker is ready under another map", ["starting_broker_that_hears_another_map"]),
    "map_all": ("a new map is used without the others", ["starting_broker_that_hears_another_map",
                                                        "broker_that_never_loads_is_named_and_left_out"]),
    "clock": ("the broker's clock runs while it is stopped", ["receiver_stopped_behind_a_gap"]),
    "silent": ("a silent origin is given up as soon as others", ["origin_stopped_when_it_is_asked"]),
    "back": ("the time of silence counts once the origin is heard again", ["origin_cut_off_when_it_is_asked"]),
    "deaf": ("the time counts in which no shard is heard", ["all_shards_down_behind_a_gap"]),
    "give_up_2s": ("gaps are given up after 2 s", ["origin_stopped_for_3_s_when_it_is_asked"]),
    "answered": ("an origin that is answering is given up", ["broker_pause"]),
    "first_run": ("all missing are given up with the first", ["only_the_first_run_is_given_up"]),
    "acked": ("a pod resumes after what was written", ["pods"]),
    "replay": ("a pod that returns starts live", ["pods"]),
    "ack_wait": ("a pod's end is not waited out", ["pods"]),
    "tail_idle": ("tails of idle partitions only", ["steady_partition_where_one_is_not_subscribed"]),
    "usable": ("a shard is used whether or not others are subscribed", ["shard_that_one_cannot_reach_is_left"]),
    "confirmed_recently": ("just confirmed messages are not sent again", ["shard_dies_between_reply_and_push"]),
    "ready_age": ("a base by the age since the start", ["second_starts_while_the_first_is_not_ready"]),
    "heard_again": ("an origin that was not heard for long is not asked where it is", ["quiet"]),
    "keep_positions": ("a buried origin begins again with 1", ["cut_off_long"]),
    "places": ("a changed URL is taken over at once", ["url_change_alone"]),
    "agree": ("brokers with other maps publish", ["second_cluster_of_the_same_name_is_refused"]),
    "ring_stands": ("the ring's age counts while a broker is silent", ["all_shards_down_for_longer_than_the_ring_keeps"]),
    "mute": ("the time counts in which nothing can be asked", ["cut_off_long"]),
    "tails+positions": ("neither tails nor positions", ["tail_lost_with_no_message_after_it"]),
}
REDUNDANT = {
    "join_number": ("old positions serve a new interest", ["interest"]),
    "answer_on": ("the answer comes on any shard", ["partition", "link_stall"]),
    "base_wait": ("the first message seen is the base", ["broker_crash_and_kill", "interest"]),
    "tails": ("heartbeats carry no tails", ["tail_lost_with_no_message_after_it", "link_stall", "partition"]),
    "number": ("old heartbeats are believed", ["shard_stop", "map_change_and_kill"]),
    "carries": ("the map of a peer's subscriptions is not looked at", ["map_change_and_pause", "map_late"]),
    "fail_back": ("the home is used again at once", ["shard_flap", "link_reset"]),
    "settle": ("old subscriptions end at once", ["map_change_and_kill", "map_change_and_pause"]),
    "kept": ("subscriptions of a replaced change end", ["reload_that_replaces_one_not_yet_in_use"]),
    "gone_far": ("only what was asked for is said to be gone", ["cut_off_long"]),
    "answers_once": ("each ask is answered, again and again", ["broker_pause"]),
}


def is_noticed(rule, places, seeds):
    """The place and seed where the oracle notices, or None."""
    off = frozenset(rule.split("+"))
    for place in places:
        if place in scenarios.SCENARIOS:
            try:
                if scenarios.SCENARIOS[place](off):
                    return place, 0
            except AssertionError:
                return place, 0
            continue
        for seed in range(seeds):
            found, _ = world.judge(place, seed, off)
            if found:
                return place, seed
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("rules", nargs="*")
    options = parser.parse_args()
    missed = 0
    for table in (MUTATIONS, REDUNDANT):
        for rule, (what, places) in table.items():
            if options.rules and rule not in options.rules:
                continue
            noticed = is_noticed(rule, places, options.seeds)
            missed += noticed is None and table is MUTATIONS
            print(f"{rule}: {what}: {'%s, seed %d' % noticed if noticed else 'not noticed'}"
                  f"{'' if table is MUTATIONS else ' (redundant)'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
