"""Intervals, and what is within noise: every rule that a row or a report goes by, with what it assumes.

All intervals are of 95 %. The rules differ in what they take for chance:

- the images, of one classifier or of several whose mean is one value for each image (`images.wilson_interval`,
  `images.bootstrap_interval`; `images.mcnemar` for two classifiers): another test set would give another accuracy;
- the images and the classifiers of each side, as two crossed random effects (`images.paired_difference`): another test
  set or other seeds would give another difference. Comparisons of settings go by it;
- the seeds, pooled over all settings of a rung (`seeds.pooled_spread`): what a seed does to one setting and not to the
  others, with the same spread for all of them. Halving and the ranking of a sweep go by it, since a setting has only
  two or three seeds of its own;
- the choice of the best among many settings (`many`): the score of a sweep's best setting, the differences to it, and
  what it is compared with image by image;
- the seeds and what the main effects of the searched fields leave unexplained (`seeds.setting_margin`): the effects of
  a sweep;
- the seeds of one setting alone (`seeds.score_over_seeds`): the interval that a report gives to each score. A report
  gives no verdict of its own; it shows those of the sweep and of `raysd compare`.
"""
