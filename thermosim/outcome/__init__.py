"""What a treatment achieved: the ablation zone, the ablative margin and structures at risk."""
