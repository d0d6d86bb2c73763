"""The model's types, and its config without its weights.

Places, prompts, answers, tiles, errors, config, folder; and what hosts of a model need: the
allocator's policy, and sentences about files that do not validate. Imports no torch and no other
folder.
"""
