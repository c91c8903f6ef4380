"""What a server counts and measures, in memory that its processes share, and the text that Prometheus reads.

Nothing of this waits for another process: each writes to a region of its own, and a scrape adds the regions up.
"""

from service.metrics.answered import Answered
from service.metrics.counters import Counters
from service.metrics.exposition import exposition
from service.metrics.gauges import TableGauges
from service.metrics.shared import SharedCounters

__all__ = ["Answered", "Counters", "SharedCounters", "TableGauges", "exposition"]
