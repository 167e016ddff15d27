--? verify: SELECT count(*) = 20 FROM ledger.entries WHERE note LIKE 'seen %'
DO $$
DECLARE part int;
BEGIN
  FOR part IN 0..3 LOOP
    UPDATE ledger.entries SET note = 'seen ' || note WHERE id % 4 = part;
  END LOOP;
END $$;
