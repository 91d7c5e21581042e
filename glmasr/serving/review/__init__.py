"""What was said in calls in; what should not have been said, what should have been, and how they talked out."""
