"""The five transactions as stored procedures: one round trip each, so that the server is the limit.

They execute the statements that clause 2 describes, row by row as a client would; in the binary log a
transaction looks like that of any other TPC-C kit. What the terminal would display is read, and thrown away.

What decides a value to be written is read only after the same transaction has locked or changed the row:
under REPEATABLE READ a plain SELECT could see an older state.
"""

from __future__ import annotations

from applier.workload.sql import transaction
from applier.workload.tpcc.settings import DISTRICTS

# An order line travels as digits: 6 of the item, 5 of the supplying warehouse, 2 of the quantity.
LINE_FORMAT = "{item:06d}{warehouse:05d}{quantity:02d}"
LINE_LENGTH = 13

_NEW_ORDER = f"""
UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_w_id = p_w_id AND d_id = p_d_id;
SELECT d_next_o_id - 1, d_tax INTO v_o_id, v_d_tax FROM district WHERE d_w_id = p_w_id AND d_id = p_d_id;
SELECT c_discount, c_last, c_credit, w_tax INTO v_discount, v_last, v_credit, v_w_tax
  FROM warehouse JOIN customer ON c_w_id = w_id WHERE w_id = p_w_id AND c_d_id = p_d_id AND c_id = p_c_id;
INSERT INTO orders (o_id, o_d_id, o_w_id, o_c_id, o_entry_d, o_carrier_id, o_ol_cnt, o_all_local)
  VALUES (v_o_id, p_d_id, p_w_id, p_c_id, p_at, NULL, p_lines, p_all_local);
INSERT INTO new_orders (no_o_id, no_d_id, no_w_id) VALUES (v_o_id, p_d_id, p_w_id);
WHILE v_line < p_lines DO
  SET v_i_id = SUBSTRING(p_line_digits, v_line * {LINE_LENGTH} + 1, 6);
  SET v_supply = SUBSTRING(p_line_digits, v_line * {LINE_LENGTH} + 7, 5);
  SET v_quantity = SUBSTRING(p_line_digits, v_line * {LINE_LENGTH} + 12, 2);
  SET v_line = v_line + 1;
  UPDATE stock SET
    s_quantity = IF(s_quantity >= v_quantity + 10, s_quantity - v_quantity, s_quantity - v_quantity + 91),
    s_ytd = s_ytd + v_quantity, s_order_cnt = s_order_cnt + 1,
    s_remote_cnt = s_remote_cnt + (v_supply <> p_w_id)
    WHERE s_w_id = v_supply AND s_i_id = v_i_id;
  SELECT i_price * v_quantity, ELT(p_d_id, {", ".join(f"s_dist_{n:02d}" for n in range(1, DISTRICTS + 1))})
    INTO v_amount, v_info FROM item JOIN stock ON s_i_id = i_id WHERE i_id = v_i_id AND s_w_id = v_supply;
  INSERT INTO order_line (ol_o_id, ol_d_id, ol_w_id, ol_number, ol_i_id, ol_supply_w_id, ol_delivery_d,
                          ol_quantity, ol_amount, ol_dist_info)
    VALUES (v_o_id, p_d_id, p_w_id, v_line, v_i_id, v_supply, NULL, v_quantity, v_amount, v_info);
END WHILE;"""

# The unknown item of the 1 % that must roll back (clause 2.4.1.4) is what NOT FOUND can mean here.
_NEW_ORDER_DECLARATIONS = """
DECLARE v_o_id, v_i_id, v_supply, v_quantity, v_line INT DEFAULT 0;
DECLARE v_d_tax, v_w_tax, v_discount DECIMAL(4,4);
DECLARE v_last VARCHAR(16);
DECLARE v_credit CHAR(2);
DECLARE v_amount DECIMAL(6,2);
DECLARE v_info CHAR(24);
DECLARE EXIT HANDLER FOR NOT FOUND ROLLBACK;"""

# Clause 2.5.2.2: of n customers with that last name, in order of first name, the one at n/2 rounded up.
_CUSTOMER_BY_NAME = """
IF p_c_id = 0 THEN
  SELECT (COUNT(*) + 1) DIV 2 - 1 INTO v_offset FROM customer
    WHERE c_w_id = p_c_w_id AND c_d_id = p_c_d_id AND c_last = p_last;
  SELECT c_id INTO v_c_id FROM customer WHERE c_w_id = p_c_w_id AND c_d_id = p_c_d_id AND c_last = p_last
    ORDER BY c_first LIMIT 1 OFFSET v_offset;
ELSE
  SET v_c_id = p_c_id;
END IF;"""

_PAYMENT = f"""
UPDATE warehouse SET w_ytd = w_ytd + p_amount WHERE w_id = p_w_id;
SELECT w_name INTO v_w_name FROM warehouse WHERE w_id = p_w_id;
UPDATE district SET d_ytd = d_ytd + p_amount WHERE d_w_id = p_w_id AND d_id = p_d_id;
SELECT d_name INTO v_d_name FROM district WHERE d_w_id = p_w_id AND d_id = p_d_id;
{_CUSTOMER_BY_NAME}
UPDATE customer SET
  c_balance = c_balance - p_amount, c_ytd_payment = c_ytd_payment + p_amount,
  c_payment_cnt = c_payment_cnt + 1,
  c_data = IF(c_credit = 'BC',
    LEFT(CONCAT_WS(' ', v_c_id, p_c_d_id, p_c_w_id, p_d_id, p_w_id, p_amount, c_data), 500), c_data)
  WHERE c_w_id = p_c_w_id AND c_d_id = p_c_d_id AND c_id = v_c_id;
INSERT INTO history (h_c_id, h_c_d_id, h_c_w_id, h_d_id, h_w_id, h_date, h_amount, h_data)
  VALUES (v_c_id, p_c_d_id, p_c_w_id, p_d_id, p_w_id, p_at, p_amount, CONCAT(v_w_name, '    ', v_d_name));"""

_PAYMENT_DECLARATIONS = """
DECLARE v_c_id, v_offset INT;
DECLARE v_w_name, v_d_name VARCHAR(10);"""

_ORDER_STATUS = f"""
{_CUSTOMER_BY_NAME}
SELECT c_balance, c_first, c_middle, c_last INTO v_balance, v_first, v_middle, v_last FROM customer
  WHERE c_w_id = p_c_w_id AND c_d_id = p_c_d_id AND c_id = v_c_id;
SELECT o_id, o_entry_d, o_carrier_id INTO v_o_id, v_entry, v_carrier FROM orders
  WHERE o_w_id = p_c_w_id AND o_d_id = p_c_d_id AND o_c_id = v_c_id ORDER BY o_id DESC LIMIT 1;
SELECT COUNT(ol_delivery_d), SUM(ol_quantity), SUM(ol_amount) INTO v_delivered, v_quantity, v_amount
  FROM order_line WHERE ol_w_id = p_c_w_id AND ol_d_id = p_c_d_id AND ol_o_id = v_o_id;"""

# A customer of a small database may have no order at all.
_ORDER_STATUS_DECLARATIONS = """
DECLARE v_c_id, v_offset, v_o_id, v_carrier, v_delivered, v_quantity INT;
DECLARE v_balance, v_amount DECIMAL(12,2);
DECLARE v_first, v_middle, v_last VARCHAR(16);
DECLARE v_entry DATETIME;
DECLARE CONTINUE HANDLER FOR NOT FOUND SET v_o_id = NULL;"""

_DELIVERY = f"""
WHILE v_d_id < {DISTRICTS} DO
  SET v_d_id = v_d_id + 1;
  SET v_o_id = NULL;
  SELECT no_o_id INTO v_o_id FROM new_orders WHERE no_w_id = p_w_id AND no_d_id = v_d_id
    ORDER BY no_o_id LIMIT 1 FOR UPDATE;
  IF v_o_id IS NOT NULL THEN
    DELETE FROM new_orders WHERE no_w_id = p_w_id AND no_d_id = v_d_id AND no_o_id = v_o_id;
    UPDATE orders SET o_carrier_id = p_carrier WHERE o_w_id = p_w_id AND o_d_id = v_d_id AND o_id = v_o_id;
    SELECT o_c_id INTO v_c_id FROM orders WHERE o_w_id = p_w_id AND o_d_id = v_d_id AND o_id = v_o_id;
    UPDATE order_line SET ol_delivery_d = p_at
      WHERE ol_w_id = p_w_id AND ol_d_id = v_d_id AND ol_o_id = v_o_id;
    SELECT SUM(ol_amount) INTO v_amount FROM order_line
      WHERE ol_w_id = p_w_id AND ol_d_id = v_d_id AND ol_o_id = v_o_id;
    UPDATE customer SET c_balance = c_balance + v_amount, c_delivery_cnt = c_delivery_cnt + 1
      WHERE c_w_id = p_w_id AND c_d_id = v_d_id AND c_id = v_c_id;
  END IF;
END WHILE;"""

# A district without undelivered orders is skipped (clause 2.7.4.2).
_DELIVERY_DECLARATIONS = """
DECLARE v_o_id, v_c_id INT;
DECLARE v_d_id INT DEFAULT 0;
DECLARE v_amount DECIMAL(12,2);
DECLARE CONTINUE HANDLER FOR NOT FOUND SET v_o_id = NULL;"""

_STOCK_LEVEL = """
SELECT d_next_o_id INTO v_next FROM district WHERE d_w_id = p_w_id AND d_id = p_d_id;
SELECT COUNT(DISTINCT s_i_id) INTO v_low FROM order_line JOIN stock ON s_w_id = ol_w_id AND s_i_id = ol_i_id
  WHERE ol_w_id = p_w_id AND ol_d_id = p_d_id AND ol_o_id >= v_next - 20 AND ol_o_id < v_next
    AND s_quantity < p_threshold;"""

_AT_CUSTOMER = "p_c_w_id INT, p_c_d_id INT, p_c_id INT, p_last VARCHAR(16)"


def procedures() -> dict[str, str]:
    """Name and CREATE PROCEDURE statement of the five transactions."""
    return {
        "tpcc_new_order": transaction(
            "tpcc_new_order",
            "p_w_id INT, p_d_id INT, p_c_id INT, p_lines INT, p_all_local INT, p_line_digits VARCHAR(200), "
            "p_at DATETIME",
            _NEW_ORDER,
            _NEW_ORDER_DECLARATIONS,
        ),
        "tpcc_payment": transaction(
            "tpcc_payment",
            f"p_w_id INT, p_d_id INT, {_AT_CUSTOMER}, p_amount DECIMAL(6,2), p_at DATETIME",
            _PAYMENT,
            _PAYMENT_DECLARATIONS,
        ),
        "tpcc_order_status": transaction(
            "tpcc_order_status", _AT_CUSTOMER, _ORDER_STATUS, _ORDER_STATUS_DECLARATIONS
        ),
        "tpcc_delivery": transaction(
            "tpcc_delivery", "p_w_id INT, p_carrier INT, p_at DATETIME", _DELIVERY, _DELIVERY_DECLARATIONS
        ),
        "tpcc_stock_level": transaction(
            "tpcc_stock_level",
            "p_w_id INT, p_d_id INT, p_threshold INT",
            _STOCK_LEVEL,
            "DECLARE v_next, v_low INT;",
        ),
    }
