"""Pictures and clips, from a disk or over a wire: their headers, their limits, and how they are decoded."""
