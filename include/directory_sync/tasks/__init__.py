"""What the tasks do: read the world, let the deciding code plan, and apply the plan."""
