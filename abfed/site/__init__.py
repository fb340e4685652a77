"""What every site keeps: keys and an audit log."""
