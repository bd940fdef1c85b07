"""Frames in, detections out: mailboxes, the detector, the frame loop and its swap."""
