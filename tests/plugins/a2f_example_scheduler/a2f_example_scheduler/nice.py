"""Jobs as processes of this machine at a lower priority."""

import os

from launch.schedulers.base import Option
from launch.schedulers.local.scheduler import Local


class Nice(Local):
    flags = (*Local.flags, Option(name="niceness", help="1 to 19 (default 10)", kind=int))

    def options(self, given, profile, resources, *, array):
        chosen = super().options(given, profile, resources, array=array)
        return {**chosen, "niceness": given.get("niceness") or 10}

    def render(self, job):
        niceness = job.spec.options["niceness"]
        lines = super().render(job).splitlines()
        return "\n".join(f"nice -n {niceness} {line}" for line in lines)

    def submit(self, job, after, submitted):
        os.nice(job.spec.options["niceness"])  # the jobs' processes inherit it
        return super().submit(job, after, submitted)
