"""Low-rank adaptation and its presets: other starts, other scales, other bases, ranks that move (AdaLoRA)."""
