"""Many frames as one: registered, aligned, stacked, judged, averaged."""
