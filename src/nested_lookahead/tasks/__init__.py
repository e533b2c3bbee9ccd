"""What is learned: samples, data sets, augmentation, models, objectives."""
