"""`make chaos SEED=n`: a site of real processes under a seeded schedule of kills, stops and wishes, and a check of what it left behind."""
