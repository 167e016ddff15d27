--? refused: COMMIT in a DO block
DO $$
BEGIN
  LOOP
    UPDATE ledger.entries SET note = 'x' WHERE id IN (SELECT id FROM ledger.entries WHERE note <> 'x' LIMIT 1000);
    EXIT WHEN NOT FOUND;
    COMMIT;
  END LOOP;
END $$;
