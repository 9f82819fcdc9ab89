"""Many runs side by side: reading, selecting, tables, statistics over tasks, figures."""
