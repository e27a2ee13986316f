"""Many trainings, and what starts them: this machine, Ray or Slurm."""
