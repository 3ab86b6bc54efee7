"""The parts of the paper, one file each; they know `rxt_lite.config` and each other, nothing else."""
