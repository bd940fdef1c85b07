"""Frames in, detections out: letterbox, runner and decode behind submit and collect."""
