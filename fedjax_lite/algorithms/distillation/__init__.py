"""Methods that send soft labels or features beside models, or in their place."""
