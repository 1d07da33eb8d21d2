"""What so many patients can show, before anything is trained."""
