"""Makes the image sets that a labelled folder lacks, from masks of the objects: mixed backgrounds, cue conflict,
shifted styles.
"""
