"""One front end for pages and notebooks: modules in `js/`, the model they read written by `export`, and widgets around them."""

from rxt_lite.widgets.notebook import CostMeter, GateExplorer, LiveRxT, MemoryMap, SlotSurvival

__all__ = ["CostMeter", "GateExplorer", "LiveRxT", "MemoryMap", "SlotSurvival"]
