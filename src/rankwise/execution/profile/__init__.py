"""What an adapter costs on this machine, predicted and measured: memory by cause, time by phase, generation."""
