"""Training in several processes: sessions, failure detection, preemption."""
