"""What is looked at in trained models beside their bits/dim, a file each."""
