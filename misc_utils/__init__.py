"""Processes, files and messages: the ground that every other package stands on."""
