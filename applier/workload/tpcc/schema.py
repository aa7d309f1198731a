"""The nine tables (clause 1.3), with the indexes that the transactions need."""

from __future__ import annotations

# Children of foreign keys before their parents: the order to drop them in.
TABLES = (
    "history",
    "new_orders",
    "order_line",
    "orders",
    "customer",
    "district",
    "stock",
    "item",
    "warehouse",
)

_ADDRESS = """
    {0}_street_1 VARCHAR(20) NOT NULL,
    {0}_street_2 VARCHAR(20) NOT NULL,
    {0}_city VARCHAR(20) NOT NULL,
    {0}_state CHAR(2) NOT NULL,
    {0}_zip CHAR(9) NOT NULL,"""

_DISTRICT_INFOS = "".join(f"    s_dist_{number:02d} CHAR(24) NOT NULL,\n" for number in range(1, 11))

_COLUMNS = {
    "warehouse": f"""
    w_id INT NOT NULL,
    w_name VARCHAR(10) NOT NULL,{_ADDRESS.format("w")}
    w_tax DECIMAL(4,4) NOT NULL,
    w_ytd DECIMAL(12,2) NOT NULL,
    PRIMARY KEY (w_id)""",
    "item": """
    i_id INT NOT NULL,
    i_im_id INT NOT NULL,
    i_name VARCHAR(24) NOT NULL,
    i_price DECIMAL(5,2) NOT NULL,
    i_data VARCHAR(50) NOT NULL,
    PRIMARY KEY (i_id)""",
    "stock": f"""
    s_i_id INT NOT NULL,
    s_w_id INT NOT NULL,
    s_quantity SMALLINT NOT NULL,
{_DISTRICT_INFOS}    s_ytd INT NOT NULL,
    s_order_cnt INT NOT NULL,
    s_remote_cnt INT NOT NULL,
    s_data VARCHAR(50) NOT NULL,
    PRIMARY KEY (s_w_id, s_i_id)""",
    "district": f"""
    d_id TINYINT NOT NULL,
    d_w_id INT NOT NULL,
    d_name VARCHAR(10) NOT NULL,{_ADDRESS.format("d")}
    d_tax DECIMAL(4,4) NOT NULL,
    d_ytd DECIMAL(12,2) NOT NULL,
    d_next_o_id INT NOT NULL,
    PRIMARY KEY (d_w_id, d_id)""",
    "customer": f"""
    c_id INT NOT NULL,
    c_d_id TINYINT NOT NULL,
    c_w_id INT NOT NULL,
    c_first VARCHAR(16) NOT NULL,
    c_middle CHAR(2) NOT NULL,
    c_last VARCHAR(16) NOT NULL,{_ADDRESS.format("c")}
    c_phone CHAR(16) NOT NULL,
    c_since DATETIME NOT NULL,
    c_credit CHAR(2) NOT NULL,
    c_credit_lim DECIMAL(12,2) NOT NULL,
    c_discount DECIMAL(4,4) NOT NULL,
    c_balance DECIMAL(12,2) NOT NULL,
    c_ytd_payment DECIMAL(12,2) NOT NULL,
    c_payment_cnt INT NOT NULL,
    c_delivery_cnt INT NOT NULL,
    c_data VARCHAR(500) NOT NULL,
    PRIMARY KEY (c_w_id, c_d_id, c_id),
    KEY customer_by_name (c_w_id, c_d_id, c_last, c_first)""",
    "orders": """
    o_id INT NOT NULL,
    o_d_id TINYINT NOT NULL,
    o_w_id INT NOT NULL,
    o_c_id INT NOT NULL,
    o_entry_d DATETIME NOT NULL,
    o_carrier_id TINYINT,
    o_ol_cnt TINYINT NOT NULL,
    o_all_local TINYINT NOT NULL,
    PRIMARY KEY (o_w_id, o_d_id, o_id),
    KEY orders_by_customer (o_w_id, o_d_id, o_c_id, o_id)""",
    "order_line": """
    ol_o_id INT NOT NULL,
    ol_d_id TINYINT NOT NULL,
    ol_w_id INT NOT NULL,
    ol_number TINYINT NOT NULL,
    ol_i_id INT NOT NULL,
    ol_supply_w_id INT NOT NULL,
    ol_delivery_d DATETIME,
    ol_quantity TINYINT NOT NULL,
    ol_amount DECIMAL(6,2) NOT NULL,
    ol_dist_info CHAR(24) NOT NULL,
    PRIMARY KEY (ol_w_id, ol_d_id, ol_o_id, ol_number)""",
    "new_orders": """
    no_o_id INT NOT NULL,
    no_d_id TINYINT NOT NULL,
    no_w_id INT NOT NULL,
    PRIMARY KEY (no_w_id, no_d_id, no_o_id)""",
    # The specification gives history no primary key.
    "history": """
    h_c_id INT NOT NULL,
    h_c_d_id TINYINT NOT NULL,
    h_c_w_id INT NOT NULL,
    h_d_id TINYINT NOT NULL,
    h_w_id INT NOT NULL,
    h_date DATETIME NOT NULL,
    h_amount DECIMAL(6,2) NOT NULL,
    h_data VARCHAR(24) NOT NULL""",
}

_FOREIGN_KEYS = {
    "stock": (
        ("s_w_id", "warehouse (w_id)"),
        ("s_i_id", "item (i_id)"),
    ),
    "district": (("d_w_id", "warehouse (w_id)"),),
    "customer": (("c_w_id, c_d_id", "district (d_w_id, d_id)"),),
    "orders": (("o_w_id, o_d_id, o_c_id", "customer (c_w_id, c_d_id, c_id)"),),
    "order_line": (
        ("ol_w_id, ol_d_id, ol_o_id", "orders (o_w_id, o_d_id, o_id)"),
        ("ol_supply_w_id, ol_i_id", "stock (s_w_id, s_i_id)"),
    ),
    "new_orders": (("no_w_id, no_d_id, no_o_id", "orders (o_w_id, o_d_id, o_id)"),),
    "history": (
        ("h_c_w_id, h_c_d_id, h_c_id", "customer (c_w_id, c_d_id, c_id)"),
        ("h_w_id, h_d_id", "district (d_w_id, d_id)"),
    ),
}


def definitions(foreign_keys: bool) -> list[str]:
    """CREATE TABLE statements, parents before children."""
    return [_definition(table, foreign_keys) for table in reversed(TABLES)]


def _definition(table: str, foreign_keys: bool) -> str:
    constraints = _FOREIGN_KEYS.get(table, ()) if foreign_keys else ()
    clauses = "".join(
        f",\n    FOREIGN KEY ({columns}) REFERENCES {parent}" for columns, parent in constraints
    )
    return f"CREATE TABLE {table} ({_COLUMNS[table]}{clauses}\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
