"""Methods whose server waits for no cohort: uploads are taken in as they arrive, from models of unequal age."""
