"""What is promised, and what was seen.

The oracle knows the promises of the documentation alone:

  * a request that names a session reaches the endpoint that opened it, or none;
  * an answer belongs to the request that it follows, whole and in order; so do frames of a WebSocket;
  * a request that is not safe to repeat reaches endpoints at most once;
  * what the edge refuses reaches no endpoint;
  * a session of an endpoint that stays and serves is touched by nothing that happens elsewhere: not by reloads,
    lists, other endpoints' ends, or other clients;
  * new sessions go to a draining endpoint only while no other takes them;
  * everything is answered, and nothing is left over when all is quiet.

`disturb(name, why)` notes what the test itself does to an endpoint: what fails there meanwhile is excused.
"""
import collections
import contextlib
import time

#: How long after a deed of the test its consequences may still be seen by sessions of that endpoint.
SETTLE = 2.5


class Oracle:
    def __init__(self, patience):
        self.patience = patience
        self.violations = []
        self.counts = collections.Counter()
        self.posts = collections.Counter()
        self._disturbed = collections.defaultdict(list)  # name: [[since, until, why]]
        self.deeds = collections.deque(maxlen=60)
        self.began = time.monotonic()

    def now(self):
        return time.monotonic() - self.began

    def deed(self, text):
        self.deeds.append(f"{self.now():9.3f} {text}")

    def violation(self, kind, text):
        self.counts["violations"] += 1
        if len(self.violations) < 20:
            self.violations.append(f"{self.now():9.3f} {kind}: {text}")

    def count(self, what, more=1):
        self.counts[what] += more

    @contextlib.contextmanager
    def disturbing(self, name, why):
        """What the test does to endpoint `name` while this lasts, and a while longer."""
        entry = [self.now(), float("inf"), why]
        self._disturbed[name].append(entry)
        self.deed(f"{name}: {why}")
        try:
            yield
        finally:
            entry[1] = self.now() + SETTLE * self.patience
            self.deed(f"{name}: {why} ends")

    def all_is_quiet(self):
        """No session is left that a deed of before could touch."""
        self._disturbed.clear()

    def is_disturbed(self, name, since):
        """Was the endpoint disturbed at any time from `since` on?"""
        return any(until >= since for _, until, _ in self._disturbed[name])

    def failed(self, name, since, kind, text):
        """An honest client was failed, at a session of endpoint `name` (None: of none) that began at `since`."""
        if name is not None and self.is_disturbed(name, since):
            self.count(f"excused {kind}")
        else:
            self.violation(kind, f"{text} (endpoint {name}, since {since:.3f})")

    def post_arrived(self, number, endpoint):
        self.posts[number] += 1
        if self.posts[number] > 1:
            self.violation("sent twice", f"{number} reached endpoints {self.posts[number]} times, now {endpoint}")

    def summary(self):
        return ", ".join(f"{value} {key}" for key, value in sorted(self.counts.items()))
