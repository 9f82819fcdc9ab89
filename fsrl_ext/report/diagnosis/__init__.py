"""What a saved policy's critics, constraint and episodes are like: measures, findings, text and picture."""
